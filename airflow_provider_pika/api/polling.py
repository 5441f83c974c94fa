"""When to poll a job again and when to give up: decisions without clocks or sleeps of their own.

Times are UTC epoch seconds, so that they can be stored, sent to a triggerer and compared there.
``jitter`` is a random number in [0, 1) which the caller draws, so that a decision can be tested.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
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
MIN_POLL_INTERVAL = 10.0
# Airflow's executor may still report the old leg of a task that comes back sooner (apache/airflow#71172),
# and so fail the new one.
MIN_RESCHEDULE = 15.0
# A poll that failed makes the next one later, up to this.
MAX_BACKOFF = 300.0
# So many failed polls in a row are more than weather: with 30 s polls that is about half an hour.
TRANSIENT_LIMIT = 10
# A fresh jobid may be unknown to the service for a moment; one that never existed must not be waited for.
NOT_FOUND_LIMIT = 3
# A waiting task logs one line a minute at most. 58 s, because every other 30 s poll comes some milliseconds before the
# minute is over.
LINE_INTERVAL = 58.0
# Lines a second in the logs of all who wait on a connection in one triggerer: each is written on its event loop.
LINES_PER_SECOND = 10
# The list of running jobs shows no progress, so a job on it is read as well: each once a minute while at most
# FEW_WAITERS wait; where more wait, one with each list, the one read longest ago. That is two requests an interval,
# however many wait.
READ_INTERVAL = 58.0
FEW_WAITERS = 10

_PERCENTAGE = re.compile(r"(?<![\d.])(\d{1,3})(?:\.\d+)? ?%")


@dataclass(frozen=True)
class PollOutcome:
    """
    What a poll of a job means: exactly one of ``job`` (it has ended), ``error`` (stop waiting), or poll again.

    :param after: seconds to the next poll
    :param timed_out: whether the deadline has passed
    :param note: what to tell the log
    :param told_after: if the service itself called, how many seconds before the poll's answer
    """

    job: Job | None = None
    error: PikaError | None = None
    timed_out: bool = False
    after: float = 0.0
    note: str = ""
    told_after: float | None = None

    @property
    def is_last(self) -> bool:
        """Whether the wait is over."""
        return bool(self.job or self.error or self.timed_out)

    def __str__(self) -> str:
        told = "" if self.told_after is None else f", told by the service after {self.told_after:.1f} s"
        return self.note + told


@dataclass
class PollState:
    """
    What a waiter remembers between its polls of one job.

    :param interval: seconds between polls while all is well
    :param deadline: epoch seconds after which the wait has timed out
    :param transient_errors: failed polls in a row so far
    :param not_found: polls in a row that found no such job
    :param last: what the last poll said, for the message of a timeout
    """

    jobid: str
    interval: float
    deadline: float
    transient_errors: int = 0
    not_found: int = 0
    last: str = "it was never polled"

    def after_poll(self, found: Job | PikaError, now: float, jitter: float = 0.0) -> PollOutcome:
        """Decide what a poll means. Only a run of failures, a missing job or a final refusal is an error."""
        outcome = self._read(found) if isinstance(found, Job) else self._failed(found, jitter)
        self.last = outcome.note
        if outcome.job or outcome.error:
            return outcome
        left = self.deadline - now
        if left <= 0:
            return PollOutcome(timed_out=True, note=outcome.note)
        # The last poll comes at the deadline, but never sooner than the API allows.
        return PollOutcome(after=max(MIN_POLL_INTERVAL, min(outcome.after, left)), note=outcome.note)

    def timeout_message(self) -> str:
        """Return the message of a wait that is over without an end of the job."""
        return f"Timed out: {self.jobid} did not end by {when(self.deadline)}; the last poll: {self.last}."

    def _read(self, job: Job) -> PollOutcome:
        self.transient_errors = self.not_found = 0
        if job.is_final:
            return PollOutcome(job=job, note=f"{job.jobid} is {job.status}")
        unknown = "" if job.is_known else ", a state this version does not know: taken for running"
        done = percentage(job)
        progress = "" if done is None else f" ({done}%)"
        return PollOutcome(after=self.interval, note=f"{job.jobid} is {job.shown_status}{progress}{unknown}")

    def _failed(self, error: PikaError, jitter: float) -> PollOutcome:
        missing = isinstance(error, PikaNotFoundError)
        self.not_found += missing
        self.transient_errors += not missing
        if missing and self.not_found < NOT_FOUND_LIMIT:
            return PollOutcome(
                after=self.interval,
                note=f"the API does not know {self.jobid} (yet): poll {self.not_found} of {NOT_FOUND_LIMIT}",
            )
        if not isinstance(error, (PikaUnavailableError, PikaRateLimitedError, PikaQueueFullError)):
            return PollOutcome(error=error, note=str(error))
        if self.transient_errors >= TRANSIENT_LIMIT:
            return PollOutcome(error=_gave_up(error, self.jobid), note=str(error))
        later = min(MAX_BACKOFF, self.interval * 2**self.transient_errors * (0.75 + jitter / 2))
        asked = error.retry_after or 0.0
        note = f"a transient error ({self.transient_errors} of {TRANSIENT_LIMIT} in a row): {error}"
        return PollOutcome(after=max(later, self.interval, asked), note=note)


@dataclass
class Told:
    """
    What the log of one waiting task was told last.

    :param text: the words
    :param at: when, epoch seconds; long ago if they are only what goes without saying
    """

    text: str
    at: float = float("-inf")

    def is_news(self, text: str, now: float) -> bool:
        """Whether to tell it this too: it is something else, and the last line is not of this minute."""
        return text != self.text and now - self.at >= LINE_INTERVAL


@dataclass
class Lines:
    """The lines of all who wait on a connection: never many at the same instant."""

    _next: float = 0.0

    def delay(self, now: float) -> float | None:
        """Return in how many seconds there is room for one more line; None if only after it has become stale."""
        delay = max(0.0, self._next - now)
        if delay > LINE_INTERVAL:
            return None
        self._next = now + delay + 1 / LINES_PER_SECOND
        return delay


def reads_beside_list(ages: Sequence[float]) -> int:
    """
    Return how many jobs to read although the list names them, those with the oldest reads first.

    :param ages: how long ago each that waits read its job, in seconds
    """
    old = sum(age >= READ_INTERVAL for age in ages)
    return old if len(ages) <= FEW_WAITERS else min(old, 1)


def percentage(job: Job) -> int | None:
    """Return how far a job is by its ``content``, None if that does not say; a prompt's own "50 %" is not it."""
    content = str(job.raw.get("content") or "")
    for name in ("prompt", "message"):
        if said := str(job.raw.get(name) or ""):
            content = content.replace(said, "")
    found = [int(number) for number in _PERCENTAGE.findall(content)]
    return found[-1] if found and found[-1] <= 100 else None


def _gave_up(error: PikaError, jobid: str) -> PikaError:
    return PikaUnavailableError(
        f"Gave up polling {jobid} after {TRANSIENT_LIMIT} failed polls in a row; the job was left alone and may"
        f" still end. The last error: {error}",
        status=error.status,
        error=error.error,
        details=error.details,
        jobid=jobid,
    )


def interval_at_least(name: str, interval: float, floor: float) -> tuple[float, str | None]:
    """
    Return the interval raised to the floor, and a warning if it had to be raised.

    :param name: the argument's name, for the warning
    """
    if interval >= floor:
        return interval, None
    whose = "the Pika API allows" if floor == MIN_POLL_INTERVAL else "Airflow reschedules safely"
    return floor, f"{name}={interval:g} s was raised to {floor:g} s, the shortest that {whose}."


def seconds_of(name: str, value: Any) -> float:
    """
    Return a duration in seconds.

    :param name: the argument's name, for the error

    :raises ValueError: for anything but a timedelta or a number that is not negative: found out when the DAG is
        read rather than when a job has been paid for
    """
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < float("inf"):
        raise ValueError(f"{name} must be a timedelta or a number of seconds, not {value!r}")
    return float(seconds)


def when(epoch: float) -> str:
    """Format a moment in UTC."""
    return pendulum.from_timestamp(epoch).format("YYYY-MM-DD HH:mm:ss [UTC]")


def duration(seconds: float) -> str:
    """Format a duration."""
    return pendulum.duration(seconds=round(seconds)).in_words(locale="en") if seconds >= 1 else f"{seconds:g} s"
