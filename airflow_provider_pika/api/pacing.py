"""When to look again, when to submit again, when to give up: decisions without clocks or sleeps of their own.

Times are UTC epoch seconds, so that they can be stored, sent to a triggerer and compared there.
``spread`` is a random number in [0, 1) which the caller draws, so that a decision can be tested.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pendulum

from airflow_provider_pika.api.job import Job
from airflow_provider_pika.exceptions import (
    PikaError,
    PikaNotFoundError,
    PikaQueueFullError,
    PikaRateLimitedError,
    PikaUnavailableError,
)

# The API's own documentation: ask again after 10 to 30 seconds.
LOOK_GAP = 10.0
# Airflow's executor may still report the old leg of a task that comes back sooner (apache/airflow#71172),
# and so fail the new one.
RESCHEDULE_GAP = 15.0
# A look that failed makes the next one later, up to this.
SLOWEST_LOOK = 300.0
# So many failed looks in a row are no passing fault: with 30 s polls that is about half an hour.
FAULT_LIMIT = 10
# A fresh jobid may be unknown to the service for a moment; one that never existed must not be waited for.
MISS_LIMIT = 3
# A full queue frees a slot every minute or so: who was turned away often need not ask that often.
SLOWEST_SUBMIT = 300.0


@dataclass(frozen=True)
class Verdict:
    """
    What a look at a job means: exactly one of ``job`` (it has ended), ``error`` (stop waiting), or look again.

    :param after: seconds to the next look
    :param timed_out: whether the deadline has passed
    :param note: what to tell the log
    """

    job: Job | None = None
    error: PikaError | None = None
    timed_out: bool = False
    after: float = 0.0
    note: str = ""


@dataclass
class Watch:
    """
    What a waiter remembers between its looks at one job.

    :param interval: seconds between looks while all is well
    :param deadline: epoch seconds after which the wait has timed out
    :param faults: failed looks in a row so far
    :param misses: looks in a row that found no such job
    :param last: what the last look said, for the message of a timeout
    """

    jobid: str
    interval: float
    deadline: float
    faults: int = 0
    misses: int = 0
    last: str = field(default="it was never looked at")

    def judge(self, found: Job | PikaError, now: float, spread: float = 0.0) -> Verdict:
        """Decide what a look means. Only a run of faults, a missing job or a final refusal is an error."""
        verdict = self._read(found) if isinstance(found, Job) else self._fault(found, spread)
        self.last = verdict.note
        if verdict.job or verdict.error:
            return verdict
        left = self.deadline - now
        if left <= 0:
            return Verdict(timed_out=True, note=verdict.note)
        # The last look comes at the deadline, but never sooner than the API allows.
        return Verdict(after=max(LOOK_GAP, min(verdict.after, left)), note=verdict.note)

    def timeout_message(self) -> str:
        """Word a wait that is over without an end of the job."""
        return f"Job {self.jobid} did not end by {when(self.deadline)}; the last look: {self.last}."

    def _read(self, job: Job) -> Verdict:
        self.faults = self.misses = 0
        if job.is_final:
            return Verdict(job=job, note=f"job {job.jobid} is {job.status}")
        state = job.status or "in no state the API names"
        strange = "" if job.is_known else ", a state this version does not know: taken for running"
        return Verdict(after=self.interval, note=f"job {job.jobid} is {state}{strange}")

    def _fault(self, error: PikaError, spread: float) -> Verdict:
        missing = isinstance(error, PikaNotFoundError)
        self.misses += missing
        self.faults += not missing
        if missing and self.misses < MISS_LIMIT:
            return Verdict(
                after=self.interval,
                note=f"the API does not know job {self.jobid} (yet): look {self.misses} of {MISS_LIMIT}",
            )
        if not isinstance(error, (PikaUnavailableError, PikaRateLimitedError, PikaQueueFullError)):
            return Verdict(error=error, note=str(error))
        if self.faults >= FAULT_LIMIT:
            return Verdict(error=_gave_up(error, self.jobid), note=str(error))
        later = min(SLOWEST_LOOK, self.interval * 2**self.faults * (0.75 + spread / 2))
        asked = error.retry_after or 0.0
        note = f"a fault in passing ({self.faults} of {FAULT_LIMIT} in a row): {error}"
        return Verdict(after=max(later, self.interval, asked), note=note)


def _gave_up(error: PikaError, jobid: str) -> PikaError:
    return PikaUnavailableError(
        f"Gave up watching job {jobid} after {FAULT_LIMIT} failed looks in a row; the job was left alone and may still"
        f" end. The last fault: {error}",
        status=error.status,
        error=error.error,
        details=error.details,
        jobid=jobid,
    )


def submit_wait(error: PikaError, *, turned_away: int, left: float, spread: float) -> float | None:
    """
    Return how many seconds to wait before submitting again after a 429, or None to give up.

    :param error: the queue-full or rate-limit answer
    :param turned_away: how often this task has been turned away before
    :param left: seconds left of ``queue_timeout``
    """
    least = max(RESCHEDULE_GAP, error.retry_after or 0.0)
    if least > left:
        return None
    if isinstance(error, PikaRateLimitedError) and error.retry_after is not None:
        # What the service asks for is waited in full; the jitter keeps a mapped task's many submits apart.
        return min(left, least + RESCHEDULE_GAP * spread)
    # 15 to 30 s at first, longer for those turned away often: hundreds may queue behind ten.
    slower = min(SLOWEST_SUBMIT, RESCHEDULE_GAP * 1.25 ** min(turned_away, 20))
    return min(left, max(least, slower * (1 + spread)))


def interval_at_least(interval: float, floor: float) -> tuple[float, str | None]:
    """Return the interval raised to the floor, and a warning if it had to be raised."""
    if interval >= floor:
        return interval, None
    return (
        floor,
        f"An interval of {interval:g} s is too short for the Pika API or for Airflow: it was raised to {floor:g} s.",
    )


def seconds_of(value: Any) -> float:
    """
    Return a duration in seconds.

    :raises ValueError: for anything but a timedelta or a number that is not negative: found out when the DAG is
        read rather than when a job has been paid for
    """
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < float("inf"):
        raise ValueError(f"A duration must be a timedelta or a number of seconds, not {value!r}")
    return float(seconds)


def when(epoch: float) -> str:
    """Word a moment in UTC."""
    return pendulum.from_timestamp(epoch).format("YYYY-MM-DD HH:mm:ss [UTC]")


def duration(seconds: float) -> str:
    """Word a duration."""
    return pendulum.duration(seconds=round(seconds)).in_words(locale="en") if seconds >= 1 else f"{seconds:g} s"
