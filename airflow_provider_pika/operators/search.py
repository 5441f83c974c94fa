"""Looking for the job of a submit whose answer nobody has seen, right after it was lost or in a later attempt."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import pendulum

from airflow_provider_pika.api.polling import MIN_RESCHEDULE, TRANSIENT_LIMIT
from airflow_provider_pika.api.recovery import (
    IN_PLACE_PAUSE,
    POLL_GAP_LIMIT,
    SEARCH_BACKOFF_LIMIT,
    SEARCH_PAUSE,
    LostAnswer,
    Next,
    Record,
)
from airflow_provider_pika.compat import AirflowRescheduleException
from airflow_provider_pika.exceptions import (
    PikaError,
    PikaNotFoundError,
    PikaRateLimitedError,
    PikaUnavailableError,
)

if TYPE_CHECKING:
    from airflow.sdk.types import Logger

    from airflow_provider_pika.api.job import Job
    from airflow_provider_pika.hooks.pika import PikaHook
    from airflow_provider_pika.operators.memory import SubmitMemory

TRANSIENT = (PikaUnavailableError, PikaRateLimitedError)
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
        self._answered = Moment.now()

    def rule_out(self, jobid: str) -> None:
        """Never take this job for the one that is looked for, although it may carry the same reference."""
        self._ruled_out.add(jobid)

    def after_lost_answer(self, record: Record, reply_ref: str, *, left: Moment, may_submit: bool) -> Job | None:
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
                job = self.find(reply_ref)
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
                return None
            pause = max(IN_PLACE_PAUSE, (transient.retry_after or 0.0) if transient else 0.0)
            if step is Next.RESCHEDULE or pause > POLL_GAP_LIMIT:
                self.leave(record, transient)
            time.sleep(pause)
            if self.killed:
                raise PikaUnavailableError(f"{KILLED} A later attempt looks for the job of what was sent.")

    def find(self, reply_ref: str) -> Job | None:
        """
        Return the running job that was submitted with this reference.

        :raises PikaError: when a poll failed, so that not having found it means nothing
        """
        transient: PikaError | None = None
        listed = self._hook.list_jobs()
        self._answered = Moment.now()
        for jobid in listed:
            if jobid in self._ruled_out:
                continue
            try:
                job = self._hook.get_job(jobid)
            except PikaNotFoundError as error:
                # Listed, but not to be read yet: it may be the very one.
                transient = PikaUnavailableError(str(error), status=error.status, error=error.error, jobid=jobid)
                continue
            except TRANSIENT as error:
                transient = error
                continue
            if job.raw.get("replyRef") == reply_ref:
                self._log.info("Found job %s, submitted by this task: going on with it.", jobid)
                return job
            self._ruled_out.add(jobid)
        if transient:
            raise transient
        return None

    def leave(self, record: Record, transient: PikaError | None) -> NoReturn:
        """
        Count a poll and leave the worker until the next one; the record is kept.

        :param transient: how the poll failed, None if it went through
        :raises PikaUnavailableError: for a retry, when too many have failed in a row
        """
        record = self._memory.counted(record, went_through=transient is None)
        gave_up = transient is not None and record.transient_errors >= TRANSIENT_LIMIT
        self._memory.save(record)
        if transient is not None and gave_up:
            known = f"job {record.jobid} cannot be read" if record.jobid else "whether it has a job is not known"
            raise PikaUnavailableError(
                f"Nothing was submitted: there was an earlier submit, and {known}. {transient}",
                status=transient.status,
                error=transient.error,
                details=transient.details,
                jobid=transient.jobid or record.jobid,
                retry_after=transient.retry_after,
            ) from transient
        pause = SEARCH_PAUSE
        if transient is not None:
            self._log.warning("%s", transient)
            later = min(SEARCH_BACKOFF_LIMIT, MIN_RESCHEDULE * 2.0 ** (record.transient_errors - 1))
            pause = max(later, transient.retry_after or 0.0)
        # The jitter keeps the many tasks of one crash apart.
        pause *= 1 + random.random() / 4
        self._log.info("Polling again in %d s, from a later leg.", pause)
        raise AirflowRescheduleException(pendulum.now("UTC").add(seconds=pause))
