"""One submit, paid for once: remember the intent, send, remember the jobid; go on with it after a crash.

The story of every state is told in ``docs/never-twice.md``; what follows from each is decided in
:mod:`airflow_provider_pika.api.recovery`.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_pika.api.errors import MAY_EXIST
from airflow_provider_pika.api.job import Job
from airflow_provider_pika.api.polling import NOT_FOUND_LIMIT, when
from airflow_provider_pika.api.recovery import (
    FORGOTTEN_AFTER,
    INTENT_FRESH,
    Next,
    Record,
    after_reading,
    after_search,
    digest,
)
from airflow_provider_pika.exceptions import (
    PikaError,
    PikaNotFoundError,
    PikaQueueFullError,
    PikaRateLimitedError,
    PikaUnavailableError,
    PikaUnknownOutcomeError,
)
from airflow_provider_pika.metrics import count_submit
from airflow_provider_pika.operators.memory import SubmitMemory
from airflow_provider_pika.operators.search import KILLED, TRANSIENT, JobSearch, Moment

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.types import Logger

    from airflow_provider_pika.api.commands import Call
    from airflow_provider_pika.files.multipart import ImagePart
    from airflow_provider_pika.hooks.pika import PikaHook

_GATEWAY_TIMEOUT = 504
# One submit and, after a lost answer, one more: a try sends no third.
_SENDS_LIMIT = 2
# An API that cannot be reached while an intent is fresh, so often in a row, is not there.
_INTENTS_LIMIT = 3
_OUTCOMES: dict[type[PikaError], str] = {PikaQueueFullError: "queue_full", PikaRateLimitedError: "rate_limited"}


class _StaleIntentError(PikaUnavailableError):
    """The process was held up between its intent and the request's first byte: nothing was sent."""


class Submission:
    """
    The submit of one task instance.

    :param inputs: the rendered inputs of the submit
    :param prepare: checks them and returns the call that sends them with a given reference
    :param resubmit_unknown: submit again although an earlier submit's outcome cannot be found out
    :param retry_failed: let a retry make a new job where the earlier one ended ``failed``
    :param keep_completed: let a clear keep a job that has completed on the same inputs
    :param queued_since: when this try joined the queue, if it comes back from waiting there
    :param tell_jobid: called with the jobid as soon as one is known
    """

    def __init__(
        self,
        context: Context,
        *,
        hook: PikaHook,
        inputs: dict[str, Any],
        prepare: Callable[[str], Call],
        resubmit_unknown: bool,
        retry_failed: bool,
        keep_completed: bool,
        queued_since: float | None,
        tell_jobid: Callable[[str], None],
        log: Logger,
    ) -> None:
        self.hook = hook
        self.log = log
        self.memory = SubmitMemory(context, inputs=digest(inputs), queued_since=queued_since, log=log)
        self._inputs = inputs
        self._prepare = prepare
        self._resubmit_unknown = resubmit_unknown
        self._retry_failed = retry_failed
        self._keep_completed = keep_completed
        self._tell_jobid = tell_jobid
        self._search = JobSearch(hook, self.memory, log)
        self._ruled_out: str | None = None
        self._intended: Moment | None = None
        self._left: Moment | None = None

    def job(self) -> Job:
        """
        Return this task's job: the one of an earlier attempt, or a new one.

        :raises PikaError: as the hook does; a submit of unknown outcome only after looking for its job
        :raises AirflowRescheduleException: to poll again from a later leg, the intent being kept
        """
        record = self.memory.record
        job = None
        if record and record.jobid:
            job = self._known_job(record, record.jobid)
        elif record and record.reply_ref:
            job = self._intended_job(record, record.reply_ref)
        return job or self._submit()

    def kill(self) -> None:
        """Send nothing more. Airflow lets a process go on for some seconds after a SIGTERM."""
        self._search.killed = True

    # Going on with an earlier attempt's submit

    def _known_job(self, record: Record, jobid: str) -> Job | None:
        cleared = self.memory.cleared
        if not cleared:
            self._tell_jobid(jobid)
        try:
            job = self.hook.get_job(jobid)
        except PikaNotFoundError:
            fresh = time.time() - record.asked_at < FORGOTTEN_AFTER
            if cleared and fresh and record.inputs == self.memory.inputs and record.polls < NOT_FOUND_LIMIT - 1:
                # It may be unknown for a moment only, and running: a clear keeps a job that runs.
                self._search.leave(record, None)
            if cleared:
                self.log.info("The API no longer knows job %s of before the clear: a new one is made.", jobid)
                return None
            if not fresh:
                raise
            # The service may not show it yet; whoever waits for it knows how to tolerate that.
            job = Job(jobid, "started", {"jobid": jobid})
        except TRANSIENT as error:
            self._search.leave(record, error)
        step = after_reading(
            job,
            cleared=cleared,
            same_inputs=record.inputs == self.memory.inputs,
            retry_failed=self._retry_failed,
            keep_completed=self._keep_completed,
        )
        self.log.info("An earlier attempt submitted job %s, which is %s: %s.", jobid, job.status, step.value)
        if step is Next.FAIL:
            raise self.hook.job_failed(job)
        if step is Next.SUBMIT:
            # It may still run, under the same reference if that is the user's own: it is not the one to be made now.
            self._ruled_out = jobid
            self._search.rule_out(jobid)
            return None
        return self._take(job, record)

    def _intended_job(self, record: Record, reply_ref: str) -> Job | None:
        """Look for the job of a submit whose answer nobody has seen; return None if a new one is to be made."""
        asked = when(record.asked_at)
        self.log.warning("A submit was sent at %s and its answer is not known: looking for its job.", asked)
        if self.memory.cleared and record.inputs != self.memory.inputs:
            self.log.info("The inputs have changed since, and a person has cleared the task: a new job is made.")
            return None
        counted = record
        if record.ruled_out:
            self._search.rule_out(record.ruled_out)
        if record.trusted:
            try:
                job = self._search.find(reply_ref)
            except TRANSIENT as error:
                self._search.leave(record, error)
            if job:
                return self._take(job, record)
            counted = self.memory.counted(record, went_through=True)
        step = after_search(
            polls=counted.polls,
            trusted=record.trusted,
            cleared=self.memory.cleared,
            resubmit_unknown=self._resubmit_unknown and self.memory.sends() < _SENDS_LIMIT,
        )
        if step is Next.RESCHEDULE:
            self.log.info("No running job carries its reference (poll %d).", counted.polls)
            self._search.leave(record, None)
        self.memory.save(counted)
        self.log.warning("No running job carries the reference of the submit of %s: %s.", asked, step.value)
        if step is Next.FAIL:
            raise self._unknown(counted)
        return None

    def _take(self, job: Job, record: Record) -> Job:
        if record.inputs != self.memory.inputs:
            self.log.warning("The inputs have changed since job %s was submitted; it is used all the same.", job.jobid)
        return self._keep_job(job, record)

    def _unknown(self, record: Record) -> PikaUnknownOutcomeError:
        searched = (
            f"In {record.polls} polls no running job carried its replyRef, but it may have run and ended."
            if record.trusted
            else "Its reply_ref is one that other tasks may share, so its job cannot be looked for."
        )
        lost = PikaError.from_event(record.lost) if record.lost else PikaError("Its answer was never recorded.")
        return PikaUnknownOutcomeError(
            f"A submit was sent at {when(record.asked_at)} and its answer is not known. {searched} {MAY_EXIST} {lost}",
            status=lost.status,
            error=lost.error,
            details=lost.details,
        )

    # Submitting

    def _submit(self) -> Job:
        # Before the intent all that can fail without anything having been sent: a bad input, a connection that cannot
        # be read, an image that is slow to fetch while the process is killed.
        reply_ref = str(self._inputs.get("reply_ref") or f"airflow-{uuid.uuid4().hex}")
        call = self._prepare(reply_ref)
        with self.hook.open_files(call) as files:
            return self._send(call, files, reply_ref)

    def _send(self, call: Call, files: Mapping[str, ImagePart], reply_ref: str) -> Job:
        sends = self.memory.sends()
        while True:
            sends += 1
            try:
                job = self._send_once(call, files, reply_ref, sends)
            except PikaUnknownOutcomeError as error:
                count_submit("unknown")
                found = self._after_lost_answer(error, reply_ref, sends)
                if found:
                    return found
                self.log.warning("Submitting once more.")
            except PikaError as error:
                # A refusal, or nothing that left: no job was made, or none that runs.
                count_submit(_OUTCOMES.get(type(error), "refused"))
                self.memory.take_intent_back()
                if error.jobid:
                    self._tell_jobid(error.jobid)
                raise
            else:
                made = self._keep_job(job, self.memory.record)
                count_submit("made", queued=time.time() - self.memory.queued_since)
                return made

    def _send_once(self, call: Call, files: Mapping[str, ImagePart], reply_ref: str, sends: int) -> Job:
        trusted = reply_ref != self._inputs.get("reply_ref") or self.memory.names_task(reply_ref)
        for _ in range(_INTENTS_LIMIT):
            self._must_live()
            # From before the writing: a machine frozen in the middle of it thaws with an intent that is long known.
            self._intended, self._left = Moment.now(), None
            self.memory.keep(
                reply_ref=reply_ref, trusted=trusted, asked_at=time.time(), sends=sends, ruled_out=self._ruled_out
            )
            try:
                return self.hook.send(call, files, before_body=self._may_leave, after_body=self._has_left)
            except _StaleIntentError as error:
                self.log.warning("%s", error)
        raise PikaUnavailableError(
            f"Nothing was submitted: {_INTENTS_LIMIT} times it took longer than {INTENT_FRESH:g} s to reach the API."
        )

    def _must_live(self) -> None:
        if self._search.killed:
            raise PikaUnavailableError(KILLED)

    def _may_leave(self) -> None:
        """Ask once more, in the transport's thread and at the request's first byte, whether it may still be sent."""
        self._must_live()
        if self._intended is None or self._intended.age > INTENT_FRESH:
            raise _StaleIntentError("This process was held up before its submit left: asking anew whether it may.")

    def _has_left(self) -> None:
        self._left = Moment.now()

    def _after_lost_answer(self, error: PikaUnknownOutcomeError, reply_ref: str, sends: int) -> Job | None:
        """Look for the job of a submit whose answer was lost; return None if it may be sent once more."""
        record = self.memory.record
        if record is None:
            raise error
        # Kept for whoever has to say in the end what came back.
        record = replace(record, lost=error.to_event())
        self.memory.save(record)
        if not record.trusted:
            if self._resubmit_unknown and sends < _SENDS_LIMIT:
                return None
            raise self._unknown(record) from error
        self.log.warning("%s Looking for the job.", error)
        # A 504 means that the bot took the job and the service lost track of it: not being listed proves nothing.
        may_submit = sends < _SENDS_LIMIT and error.status != _GATEWAY_TIMEOUT
        left = self._left or Moment.now()
        job = self._search.after_lost_answer(record, reply_ref, left=left, may_submit=may_submit)
        return self._take(job, record) if job else None

    def _keep_job(self, job: Job, record: Record | None) -> Job:
        # The log comes first, because nothing can fail before it; then the store, then XCom.
        self.log.info("The job is %s (%s).", job.jobid, job.status)
        asked_at, inputs = (record.asked_at, record.inputs) if record else (time.time(), self.memory.inputs)
        try:
            self.memory.keep(jobid=job.jobid, asked_at=asked_at, inputs=inputs)
        except Exception as error:
            raise PikaUnavailableError(f"Job {job.jobid} could not be recorded: {error}", jobid=job.jobid) from error
        self._tell_jobid(job.jobid)
        return job
