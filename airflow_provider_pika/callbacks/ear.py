"""The ear of a triggerer: it hears the bells that the api-server rings when the service has called back.

One for all who wait on an event loop, whatever their connection, and only while somebody does. Polling does not depend
on it: a bell that nobody hears makes an end known later, by a poll.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

from airflow_provider_pika import compat
from airflow_provider_pika.api.callback import BELL_PREFIX, Ring
from airflow_provider_pika.api.hearing import Bells, ear_pause

log = logging.getLogger(__name__)

Listener = Callable[[Sequence[Ring]], None]

_ears: WeakKeyDictionary[asyncio.AbstractEventLoop, Ear] = WeakKeyDictionary()


class Ear:
    """Asks for the bells once a second, and tells each listener those it has not told it yet."""

    def __init__(self) -> None:
        self._bells = Bells()
        self._listeners: dict[Listener, None] = {}
        # In a context of its own: Airflow tells triggers' logs apart by context variables, and this is nobody's.
        self._task = contextvars.Context().run(asyncio.get_running_loop().create_task, self._run())

    @staticmethod
    def listen(listener: Listener) -> Ear:
        """Let somebody on this event loop be told of bells: at once of those heard before, then of each new one."""
        loop = asyncio.get_running_loop()
        ear = _ears.get(loop)
        if ear is None:
            ear = _ears[loop] = Ear()
        ear._listeners[listener] = None
        if heard := ear._bells.rings:
            listener(heard)
        return ear

    def leave(self, listener: Listener) -> None:
        """Tell somebody no more; the last one who leaves ends the ear."""
        self._listeners.pop(listener, None)
        if not self._listeners:
            loop = asyncio.get_running_loop()
            if _ears.get(loop) is self:
                del _ears[loop]
            self._task.cancel()

    @property
    def rings(self) -> list[Ring]:
        """All bells that can be heard."""
        return self._bells.rings

    def heard_of(self, digest: str) -> Ring | None:
        """Return the newest bell for a job, as :func:`~airflow_provider_pika.api.callback.job_digest` names it."""
        return self._bells.of_job(digest)

    def _tell(self, keys: Sequence[str]) -> None:
        if new := self._bells.take_in(keys):
            for listener in list(self._listeners):
                try:
                    listener(new)
                except Exception:
                    # It polls; and the others must not become deaf over it.
                    log.exception("The service's calls could not be handed on")

    async def _run(self) -> None:
        from asgiref.sync import sync_to_async

        # In any thread: a task on the loop itself has no greenback portal for Airflow's synchronous calls.
        ask = sync_to_async(compat.variable_keys, thread_sensitive=False)
        failures, first = 0, True
        while True:
            began = time.monotonic()
            try:
                keys = await ask(BELL_PREFIX)
            except Exception as error:  # noqa: BLE001 - whatever ails Airflow's API, polling goes on, and so does this
                failures += 1
                if failures == 1:
                    log.warning("The service's calls cannot be heard (%s): ends are polled for.", type(error).__name__)
            else:
                if failures:
                    log.info("The service's calls can be heard again.")
                failures = 0
                self._tell(keys)
            # A process's first question pays for imports and connections, seconds in all; the next ones will not.
            took, first = (0.0 if first else time.monotonic() - began), False
            await asyncio.sleep(ear_pause(failures, took))
