"""Looking for the job of a submit whose answer nobody has seen, right after it was lost or in a later attempt."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn

import pendulum

from airflow_provider_pika.api.errors import may_exist
from airflow_provider_pika.api.polling import MIN_RESCHEDULE, TRANSIENT_LIMIT, when
from airflow_provider_pika.api.recovery import (
    CALLBACK_PAUSE,
    IN_PLACE_PAUSE,
    POLL_GAP_LIMIT,
    SEARCH_BACKOFF_LIMIT,
    SEARCH_PAUSE,
    SEARCH_POLLS,
    LostAnswer,
    Next,
    Record,
)
from airflow_provider_pika.compat import AirflowRescheduleException
from airflow_provider_pika.exceptions import (
    PikaError,
    PikaNotFoundError,
    PikaRateLimitedError,
    PikaRequestError,
    PikaUnavailableError,
    PikaUnknownOutcomeError,
)

if TYPE_CHECKING:
    from airflow.sdk.types import Logger

    from airflow_provider_pika.api.job import Job
    from airflow_provider_pika.hooks.pika import PikaHook
    from airflow_provider_pika.operators.memory import SubmitMemory

TRANSIENT = (PikaUnavailableError, PikaRateLimitedError)
_BAD_REQUEST = 400
_NOT_FOUND = 404
KILLED = "This task is being killed, so nothing more is submitted."


@dataclass(frozen=True)
class Moment:
    """A moment on this process's own clocks."""

    wall: float
    monotonic: float

    @classmethod
    def now(cls) -> Moment:
        """Return this moment."""
        return cls(time.time(), time.monotonic())

    def until(self, later: Moment) -> float:
        """Return the seconds between: a stopped process shows on both clocks, a frozen machine perhaps on one."""
        return max(later.wall - self.wall, later.monotonic - self.monotonic)

    @property
    def age(self) -> float:
        """Seconds since."""
        return self.until(Moment.now())


class JobSearch:
    """
    The search for the job that carries a submit's reference.

    It holds a worker only while one more submit is still possible; else it leaves and comes back with a later leg.
    """

    def __init__(self, hook: PikaHook, memory: SubmitMemory, log: Logger) -> None:
        self.killed = False
        self._hook = hook
        self._memory = memory
        self._log = log
        self._ruled_out: set[str] = set()
        self._strangers: list[str] = []
        self._answered = Moment.now()

    def rule_out(self, *jobids: str) -> None:
        """Never take these jobs for the one that is looked for, although they may carry the same reference."""
        self._ruled_out.update(jobids)

    def after_lost_answer(self, record: Record, *, left: Moment, may_submit: bool) -> Job | None:
        """
        Look for the job of a submit whose answer was just lost; return None if it may be sent once more.

        :param left: when the request's last byte left
        :param may_submit: whether it may at all
        :raises AirflowRescheduleException: to go on from a later leg, which submits nothing
        """
        search = LostAnswer(may_submit)
        while True:
            transient: PikaError | None = None
            job = None
            asked = self._answered = Moment.now()
            try:
                job = self.find(record)
            except TRANSIENT as error:
                self._log.warning("The poll for the job failed: %s", error)
                transient = error
            if job:
                return job
            step = search.after_poll(
                went_through=transient is None, asked=left.until(asked), answered=left.until(self._answered)
            )
            if step is Next.SUBMIT:
                self._log.warning("No running job carries the reference, %d s after the submit.", left.age)
                # What ended while it was listed late, or never, is in the mailbox by now; and a job that is named there
                # and cannot be read yet may be the very one.
                job, unread = self._told(record)
                if unread:
                    self.leave(record, unread)
                return job
            pause = max(IN_PLACE_PAUSE, (transient.retry_after or 0.0) if transient else 0.0)
            if step is Next.RESCHEDULE or pause > POLL_GAP_LIMIT:
                self.leave(record, transient)
            time.sleep(pause)
            if self.killed:
                raise PikaUnavailableError(f"{KILLED} A later attempt looks for the job of what was sent.")

    def find(self, record: Record) -> Job | None:
        """
        Return the job that a submit has made: one that the service called back for, ended or not, or one that runs.

        :raises PikaError: when a poll failed, so that not having found it means nothing
        """
        # The mailbox comes first: it costs no request, and a job that has ended is nowhere else. But whatever stands in
        # it, or ails the store, the list is asked too: anybody who knows its URL can have put something there.
        job, unread = self._told(record)
        if job:
            return job
        listed = self._hook.list_jobs()
        self._answered = Moment.now()
        job, transient = self._own(listed, record, told=False)
        # A jobid out of the mailbox that the API does not know must not keep the search from ever coming to its end.
        if not job and (transient or (unread and unread.status != _NOT_FOUND)):
            raise transient or unread or AssertionError
        return job

    def _told(self, record: Record) -> tuple[Job | None, PikaError | None]:
        """Return the job that the mailbox names, and why it cannot be told yet whether it names it."""
        try:
            jobids = self._memory.called_back(record)
        except Exception as error:  # noqa: BLE001 - the store's own errors, while the list may still tell
            self._log.warning("The mailbox of callbacks could not be read: %r", error)
            return None, PikaUnavailableError(f"The mailbox of callbacks could not be read ({type(error).__name__}).")
        return self._own(jobids, record, told=True)

    def _own(
        self, jobids: Iterable[str], record: Record, *, told: bool
    ) -> tuple[Job | None, PikaUnavailableError | PikaRateLimitedError | None]:
        """
        Return the one of these jobs that a submit has made, and why one that may be it could not be read.

        :param told: whether they are out of the mailbox, where anybody who knows its URL can have put them
        """
        transient: PikaUnavailableError | PikaRateLimitedError | None = None
        for jobid in jobids:
            if jobid in self._ruled_out:
                continue
            job = None
            try:
                job = self._hook.get_job(jobid)
            except (PikaNotFoundError, PikaRequestError) as error:
                if error.status not in (None, _BAD_REQUEST):
                    # Listed or called back for, but not to be read yet: it may be the very one.
                    transient = PikaUnavailableError(str(error), status=error.status, error=error.error, jobid=jobid)
                    continue
                # No jobid at all.
                if not told:
                    raise
            except TRANSIENT as error:
                transient = error
                continue
            if job and record.is_own(job):
                self._log.info("Found %s, submitted by this task: going on with it.", jobid)
                return job, None
            self.rule_out(jobid)
            # For good only what names somebody else: every field of the API is optional.
            if told and (not job or job.raw.get("replyRef")):
                self._strangers.append(jobid)
        return None, transient

    def leave(self, record: Record, transient: PikaError | None) -> NoReturn:
        """
        Count a poll and leave the worker until the next one; the record is kept.

        :param transient: how the poll failed, None if it went through
        :raises PikaUnavailableError: for a retry, when too many have failed in a row
        """
        record = replace(record, ruled_out=(*record.ruled_out, *self._strangers))
        record = self._memory.counted(record, went_through=transient is None)
        gave_up = transient is not None and record.transient_errors >= TRANSIENT_LIMIT
        self._memory.save(record)
        if transient is not None and gave_up:
            known = f"{record.jobid} cannot be read" if record.jobid else "whether it has a job is not known"
            raise PikaUnavailableError(
                f"Nothing was submitted: there was an earlier submit, and {known}. {transient}",
                status=transient.status,
                error=transient.error,
                details=transient.details,
                jobid=transient.jobid or record.jobid,
                retry_after=transient.retry_after,
            ) from transient
        pause = CALLBACK_PAUSE if record.mailbox and record.polls >= SEARCH_POLLS else SEARCH_PAUSE
        if transient is not None:
            self._log.warning("%s", transient)
            later = min(SEARCH_BACKOFF_LIMIT, MIN_RESCHEDULE * 2.0 ** (record.transient_errors - 1))
            pause = max(later, transient.retry_after or 0.0)
        # The jitter keeps the many tasks of one crash apart.
        pause *= 1 + random.random() / 4
        self._log.info("Polling again in %d s, from a later leg.", pause)
        raise AirflowRescheduleException(pendulum.now("UTC").add(seconds=pause))


def unknown_outcome(record: Record, conn_id: str) -> PikaUnknownOutcomeError:
    """Return the error for a submit whose job was not found, with what came back of it."""
    searched = "Its reply_ref is one that other tasks may share, so its job cannot be looked for."
    if record.is_searchable:
        called = "the service had called back for none, and " if record.mailbox else ""
        searched = (
            f"In {record.polls} polls {called}no running job carried its replyRef, but it may have run and ended."
        )
    # What came back, as it was worded then, says itself what to do.
    never = f"Its answer was never recorded. {may_exist(conn_id)}"
    lost = PikaError.from_event(record.lost) if record.lost else PikaError(never)
    return PikaUnknownOutcomeError(
        f"Outcome unknown: a submit was sent at {when(record.asked_at)} and its answer is not known. {searched} {lost}",
        status=lost.status,
        error=lost.error,
        details=lost.details,
    )
