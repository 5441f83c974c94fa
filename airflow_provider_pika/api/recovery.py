"""Coming back to a submit that may already have been paid for: what is remembered, and what follows from it.

The states of a submit and each way out of them are told in ``docs/never-twice.md``. No decision here compares the
clocks of two hosts by less than an hour: within one process ages are measured, across attempts polls are counted.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import Enum
from typing import Any

from airflow_provider_pika.api.callback import mailbox_of
from airflow_provider_pika.api.job import Job

# The service shows what it knows of a job late by up to a minute: a job is looked for at least so long.
LISTED_WITHIN = 60.0
# No job ends sooner after its submit, so a first poll that came by then would have shown a job that is listed at once.
NO_JOB_ENDS_WITHIN = 20.0
# Between two polls further apart a job that is listed late could have come and gone; a process that was stopped shows
# by this too.
POLL_GAP_LIMIT = 15.0
# Right after a lost answer the job is looked for in place, so often and no longer than this.
IN_PLACE_PAUSE = 10.0
IN_PLACE_LIMIT = 90.0
# A later attempt does not know when the request left. The API may take a minute to take a submit, and another one to
# list its job: so many polls, so far apart, cover both.
SEARCH_POLLS = 7
SEARCH_PAUSE = 20.0
# Where the service calls back it is worth waiting on: the call names the job as it ends, which takes minutes.
CALLBACK_POLLS = 15
CALLBACK_PAUSE = 60.0
# A poll that failed makes the next one later, but no later than this: the job may end meanwhile.
SEARCH_BACKOFF_LIMIT = 60.0
# An intent older than this when the request's first byte is due belongs to a process that was held up: another
# attempt may have begun meanwhile.
INTENT_FRESH = 5.0
# A jobid the API does not know (404) is taken for one it does not know yet, but for no longer than this.
FORGOTTEN_AFTER = 3600.0


class Next(Enum):
    """What to do after coming back."""

    GO_ON = "go on with the job"
    SUBMIT = "submit a new one"
    FAIL = "fail"
    POLL = "poll again here"
    RESCHEDULE = "poll again from a later leg"


@dataclass(frozen=True)
class Record:
    """
    What a task remembers of its submit, beyond retries, reschedules and kills.

    :param max_tries: Airflow's, which every clear by a person raises: so it tells a clear from a retry
    :param try_number: the try that wrote this
    :param queued_since: epoch seconds of the first attempt since the last clear, or since an earlier job has ended
    :param inputs: digest of the rendered inputs of the submit
    :param reply_ref: the reference the submit was sent with; None when no submit is under way
    :param trusted: whether that reference names this task instance alone
    :param asked_at: epoch seconds at which that submit was sent, by that worker's clock
    :param jobid: the job the API answered with
    :param lost: the error by which that submit's answer was lost, as an event; None if the process died
    :param ruled_out: jobs that may be taken for the one that is looked for, and are not: an earlier one that may carry
        the same reference, and what the mailbox holds of others
    :param mailbox: the key under which callbacks for that submit are collected; None: nobody calls back
    :param sends: how many submits the try has sent whose outcome is not known
    :param polls: how many polls of the search for its job have gone through
    :param transient_errors: how many have failed in a row
    :param searched_by: the try those two were counted in
    :param is_given_up: whether a new submit may take this one's place: it was proved to have made no job, as far as
        that can be, or the user's flag or a person's clear said so; it is looked for once more before each that is sent
    :param was_proved: whether it was the former
    :param ti_id: the task instance's id, of which each try has one of its own
    :param run_started: when the run started, as Airflow says
    :param written: how many records of this task instance were written before this one: the highest is the newest
    """

    max_tries: int
    try_number: int
    queued_since: float
    inputs: str = ""
    reply_ref: str | None = None
    trusted: bool = True
    asked_at: float = 0.0
    jobid: str | None = None
    lost: dict[str, Any] | None = None
    ruled_out: tuple[str, ...] = ()
    sends: int = 0
    polls: int = 0
    transient_errors: int = 0
    searched_by: int = 0
    mailbox: str | None = None
    is_given_up: bool = False
    was_proved: bool = False
    ti_id: str | None = None
    run_started: str | None = None
    written: int = 0

    @property
    def is_open(self) -> bool:
        """Whether there is anything in it that a later attempt must know to pay only once."""
        return bool(self.reply_ref or self.jobid or self.ruled_out)

    @property
    def is_searchable(self) -> bool:
        """Whether its job can be known: by a reference that nobody else uses, or by the mailbox its replyUrl names."""
        return self.trusted or self.mailbox is not None

    def is_own(self, job: Job) -> bool:
        """
        Whether a job that was read is the one this submit made.

        The mailbox in its ``replyUrl`` tells even where others use the same reference. Where the service tells of no
        mailbox, the reference must do, if it can.
        """
        if job.raw.get("replyRef") != self.reply_ref:
            return False
        told = mailbox_of(job.raw.get("replyUrl"))
        return told == self.mailbox if told and self.mailbox else self.trusted

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON-ready data."""
        return {**asdict(self), "ruled_out": list(self.ruled_out)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Record:
        """Read a record; what another version added is left aside."""
        known = {field.name: data[field.name] for field in fields(cls) if field.name in data}
        # One jobid or none is what earlier versions wrote.
        ruled_out = known.get("ruled_out") or ()
        # One that an earlier version gave up may have been a proof: that errs on the side of not paying again.
        known.setdefault("was_proved", known.get("is_given_up", False))
        known["ruled_out"] = (ruled_out,) if isinstance(ruled_out, str) else tuple(ruled_out)
        return cls(**known)


@dataclass
class LostAnswer:
    """
    The search right after an answer was lost, in the process that knows when the request left.

    Only here one more submit is possible without anybody's word, and only if the polls prove that no job was made:
    the first that went through came before any job could have ended, the last after the service must have listed one,
    and none so long after the one before that a job could have come and gone between them.

    :param may_submit: whether that is possible at all: not after a 504 (the service itself lost track of the job),
        not a second time in a try, not with a reference that others may share
    """

    may_submit: bool
    last_asked: float | None = None

    def after_poll(self, *, went_through: bool, asked: float, answered: float) -> Next:
        """
        Decide what to do after a poll that has not found the job.

        Ages are seconds since the request's last byte, as this process's clocks tell. A list is as old as its request:
        reading the jobs on it takes time too, in which it proves nothing.

        :param went_through: whether the list and each unknown job on it could be read
        :param asked: age when the list was asked for
        :param answered: age when it had come, or when asking failed
        """
        allowed = NO_JOB_ENDS_WITHIN if self.last_asked is None else self.last_asked + POLL_GAP_LIMIT
        if answered > allowed:
            self.may_submit = False
        if not self.may_submit:
            return Next.RESCHEDULE
        if went_through:
            self.last_asked = asked
            if asked >= LISTED_WITHIN:
                return Next.SUBMIT
        return Next.POLL if answered < IN_PLACE_LIMIT else Next.RESCHEDULE


def after_reading(job: Job, *, cleared: bool, same_inputs: bool, retry_failed: bool, keep_completed: bool) -> Next:
    """
    Decide how a task goes on when the job of an earlier attempt has been read.

    A retry never makes a second job while the first runs or has completed, whatever became of the inputs. A clear
    is a person's word: it keeps only a job that still runs on what is asked for now, and with ``on_clear="keep"`` one
    that has completed on it.
    """
    if cleared:
        kept = not job.is_final or (keep_completed and job.status == "completed")
        return Next.GO_ON if kept and same_inputs else Next.SUBMIT
    if not job.is_final or job.status == "completed":
        return Next.GO_ON
    # What was moderated will be again, and what was cancelled was so on purpose.
    return Next.SUBMIT if job.status == "failed" and retry_failed else Next.FAIL


def after_search(record: Record, *, polls: int, cleared: bool, resubmit_unknown: bool, unread: bool) -> Next:
    """
    Decide how a later attempt goes on that finds an intent and not its job, neither in the mailbox nor running.

    Nothing on the list proves nothing once a job can have ended: so it never submits by itself, whatever the intent's
    age. The user's flag and a person's clear are the two ways on, and they too wait for the whole search. What was
    given up before was looked for only once more, in its mailbox above all. But where the service has called back for a
    job that cannot be read, the search goes on: a proof that there is none has fallen, and a word waits once more.

    :param record: the intent
    :param polls: how many polls of the search have gone through
    :param unread: whether the service called back for a job of which nobody can tell yet whose it is
    """
    if record.is_given_up and not unread:
        return Next.SUBMIT
    may_submit = cleared or resubmit_unknown or (record.is_given_up and not record.was_proved)
    wanted = CALLBACK_POLLS if record.mailbox and not may_submit else SEARCH_POLLS
    if record.is_searchable and polls < wanted:
        return Next.RESCHEDULE
    return Next.SUBMIT if may_submit else Next.FAIL


def digest(*parts: Any) -> str:
    """Return a digest of JSON-ready values, which leaks none of them."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def names_task(reply_ref: str, *, dag_id: str, run_id: str, task_id: str, map_index: int) -> bool:
    """
    Whether a user's own ``reply_ref`` can belong to no other task instance than this one.

    Only then may a running job that carries it be taken for this task's own: a shared reference would hand one task
    the job of another. That of a mapped task is never trusted, because no text tells a map index from any other number.
    """
    if map_index >= 0:
        return False
    rest = reply_ref
    for part in sorted((dag_id, run_id, task_id), key=len, reverse=True):
        # As a word of its own: "batch" is no part of "batches", nor "a" of "data-a".
        rest, found = re.subn(rf"(?<![\w.-]){re.escape(part)}(?![\w.-])", " ", rest, count=1)
        if not found:
            return False
    return True
