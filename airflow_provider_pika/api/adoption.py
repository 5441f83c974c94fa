"""Coming back to a submit that may already have been paid for: what is remembered, and what follows from it.

The states of a submit and each way out of them are told in ``docs/never-twice.md``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import Enum
from typing import Any

from airflow_provider_pika.api.job import Job

# A made job runs for a minute or more. So one that was asked for less than this ago and is not among the
# running ones was not made; one asked for longer ago may have run and ended.
YOUNG = 60.0
# The service shows a job some seconds late.
SEARCH_TIME = 30.0
SEARCH_PAUSE = 10.0


class Next(Enum):
    """What to do after coming back."""

    GO_ON = "go on with the job"
    SUBMIT = "submit a new one"
    FAIL = "fail"


@dataclass(frozen=True)
class Record:
    """
    What a task remembers of its submit, beyond retries, reschedules and kills.

    :param max_tries: Airflow's, which every clear by a person raises: so it tells a clear from a retry
    :param try_number: the try that wrote this
    :param queued_since: epoch seconds of the first attempt since the last clear
    :param inputs: digest of the rendered inputs of the submit
    :param reply_ref: the reference the submit was sent with; None when no submit is under way
    :param trusted: whether that reference names this task instance alone
    :param untracked: whether the service said that it lost track of that submit (504): then no list proves anything
    :param asked_at: epoch seconds at which that submit was sent
    :param jobid: the job the API answered with
    """

    max_tries: int
    try_number: int
    queued_since: float
    inputs: str = ""
    reply_ref: str | None = None
    trusted: bool = True
    untracked: bool = False
    asked_at: float = 0.0
    jobid: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON-ready data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Record:
        """Read a record; what another version added is left aside."""
        return cls(**{field.name: data[field.name] for field in fields(cls) if field.name in data})


def after_reading(job: Job, *, cleared: bool, same_inputs: bool) -> Next:
    """
    Decide how a task goes on when the job of an earlier attempt has been read.

    A retry never makes a second job while the first runs or has completed, whatever became of the inputs. A clear
    is a person's word: it keeps only a job that still runs on what is asked for now.
    """
    if cleared:
        return Next.GO_ON if not job.is_final and same_inputs else Next.SUBMIT
    if not job.is_final or job.status == "completed":
        return Next.GO_ON
    # The user asked for retries; but what was moderated will be again, and what was cancelled was so on purpose.
    return Next.SUBMIT if job.status == "failed" else Next.FAIL


def after_searching(*, age: float, complete: bool, cleared: bool, resubmit_unknown: bool) -> Next:
    """
    Decide how a task goes on when no running job was found to carry the reference it had submitted with.

    :param age: seconds since that submit was sent
    :param complete: whether a job that runs would have been found
    """
    return Next.SUBMIT if cleared or resubmit_unknown or (complete and age < YOUNG) else Next.FAIL


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
