"""The list of running jobs, as one connection's poller asks for it: ever more rarely while it fails."""

from __future__ import annotations

import logging
import time

from airflow_provider_pika.api.errors import is_retryable
from airflow_provider_pika.api.polling import MAX_BACKOFF, MIN_POLL_INTERVAL
from airflow_provider_pika.exceptions import PikaError, PikaUnavailableError
from airflow_provider_pika.triggers.async_hook import AsyncHook

log = logging.getLogger(__name__)

# Failed lists in a row, after which the jobs are read one by one.
LIST_FAILURES = 3


class RunningList:
    """
    When the list may be asked for, and whether it can be leaned on.

    ``asked_at`` is when it was asked for last.
    """

    def __init__(self) -> None:
        self.asked_at = 0.0
        self._failures = 0
        self._again = 0.0

    @property
    def is_there(self) -> bool:
        """Whether it answers; where it does not, each job is read."""
        return self._failures < LIST_FAILURES

    def next(self, due: float) -> float:
        """Return when to ask for it if it is wanted at this time."""
        return max(due, self.asked_at + MIN_POLL_INTERVAL, self._again)

    async def ask(self, hook: AsyncHook) -> frozenset[str] | None:
        """Return the jobids on it; None if it could not be read."""
        self.asked_at = time.time()
        running = await self._ask(hook)
        # A refusal may be of a token that has been replaced since: nobody is told before that is known.
        if isinstance(running, PikaError) and self._failures_with(running) >= LIST_FAILURES and await hook.renew():
            self.expect()
            running = await self._ask(hook)
        if not isinstance(running, PikaError):
            self.expect()
            return running
        self._failures = self._failures_with(running)
        backoff = min(MAX_BACKOFF, MIN_POLL_INTERVAL * 2 ** min(self._failures, 5))
        self._again = time.time() + max(backoff, running.retry_after or 0.0)
        log.warning("The list of running jobs could not be read (%d in a row): %s", self._failures, running)
        return None

    def expect(self) -> None:
        """Forget its failures: it has answered, or the connection has changed."""
        self._failures, self._again = 0, 0.0

    def _failures_with(self, error: PikaError) -> int:
        # A refusal, or no such route, will not change by the next tick: the jobs tell more.
        return max(self._failures + 1, 0 if is_retryable(error) else LIST_FAILURES)

    async def _ask(self, hook: AsyncHook) -> frozenset[str] | PikaError:
        try:
            return await hook.list_jobs()
        except PikaError as error:
            return error
        except Exception as error:  # noqa: BLE001 - what nobody has foreseen must not end a thousand waits
            return PikaUnavailableError(f"an unforeseen {type(error).__name__}")
