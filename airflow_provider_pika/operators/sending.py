"""Sending a submit: open its mailbox, remember the intent, send, remember the jobid."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_pika.api.recovery import INTENT_FRESH
from airflow_provider_pika.exceptions import (
    PikaError,
    PikaQueueFullError,
    PikaRateLimitedError,
    PikaUnavailableError,
    PikaUnknownOutcomeError,
)
from airflow_provider_pika.metrics import count_submit
from airflow_provider_pika.operators.moment import Moment
from airflow_provider_pika.operators.reply import Reply, reply_to
from airflow_provider_pika.operators.search import KILLED, JobSearch, unknown_outcome

if TYPE_CHECKING:
    from airflow.sdk.types import Logger

    from airflow_provider_pika.api.commands import Call
    from airflow_provider_pika.api.job import Job
    from airflow_provider_pika.api.recovery import Record
    from airflow_provider_pika.files.multipart import ImagePart
    from airflow_provider_pika.hooks.pika import PikaHook
    from airflow_provider_pika.operators.memory import SubmitMemory

# One submit and, after a lost answer, one more: a try sends no third.
SENDS_LIMIT = 2
# An API that cannot be reached while an intent is fresh, so often in a row, is not there.
_INTENTS_LIMIT = 3
_OUTCOMES: dict[type[PikaError], str] = {PikaQueueFullError: "queue_full", PikaRateLimitedError: "rate_limited"}


class _StaleIntentError(PikaUnavailableError):
    """The process was held up between its intent and the request's first byte: nothing was sent."""


class Sending:
    """
    A submit as it is sent: once, and once more where it is proved that the first made no job.

    :param search: looks for its job when the answer is lost
    :param inputs: the rendered inputs of the submit
    :param prepare: checks them and returns the call that sends them, with where its job is to report to
    :param resubmit_unknown: submit again although an earlier submit's outcome cannot be found out
    """

    def __init__(
        self,
        hook: PikaHook,
        memory: SubmitMemory,
        search: JobSearch,
        *,
        inputs: Mapping[str, Any],
        prepare: Callable[[Reply], Call],
        resubmit_unknown: bool,
        log: Logger,
    ) -> None:
        self._hook = hook
        self._memory = memory
        self._search = search
        self._inputs = inputs
        self._prepare = prepare
        self._resubmit_unknown = resubmit_unknown
        self._log = log
        record = memory.record
        self._ruled_out = record.ruled_out if record else ()
        search.rule_out(*self._ruled_out)
        self._earlier: Record | None = None
        self._intended: Moment | None = None
        self._left: Moment | None = None

    def rule_out(self, jobid: str) -> None:
        """Never take this job for the one that is made now, although it may run under the same reference."""
        self._ruled_out = (*self._ruled_out, jobid)
        self._search.rule_out(jobid)

    def submit(self) -> Job:
        """
        Make a job and return it.

        :raises PikaError: as the hook does; a submit of unknown outcome only after looking for its job
        :raises AirflowRescheduleException: to look for it from a later leg, the intent being kept
        """
        # Whatever can fail without anything being sent comes before the intent: a bad input, a connection that cannot
        # be read, an image that is slow to fetch while the process is killed.
        reply = reply_to(
            str(self._inputs.get("reply_ref") or f"airflow-{uuid.uuid4().hex}"),
            ti=self._memory.ti,
            has_store=self._memory.has_state_store,
            callback_url=self._hook.settings.callback_url,
            own_url=self._inputs.get("reply_url"),
            log=self._log,
        )
        call = self._prepare(reply)
        with self._hook.open_files(call) as files:
            # If this submit is refused, the record of one given up earlier must come back. The service may still call
            # back for its job while this task waits in the queue; forgotten, it would be paid for twice.
            self._earlier = self._memory.given_up()
            # Once for all that is sent under this reference: a first submit may still report when a second has left.
            self._memory.open_mailbox(reply.mailbox, reply.ref)
            return self._send(call, files, reply)

    def _send(self, call: Call, files: Mapping[str, ImagePart], reply: Reply) -> Job:
        sends = self._memory.sends()
        while True:
            sends += 1
            try:
                job = self._send_once(call, files, reply, sends)
            except PikaUnknownOutcomeError as error:
                count_submit("unknown")
                found = self._after_lost_answer(error, sends)
                if found:
                    return self._memory.adopt(found)
                self._log.warning("Submitting once more.")
            except PikaError as error:
                # A refusal, or nothing that left: no job was made, or none that runs.
                count_submit(_OUTCOMES.get(type(error), "refused"))
                self._memory.take_intent_back(reply.mailbox, earlier=self._earlier, ruled_out=self._ruled_out)
                if error.jobid:
                    self._memory.tell_jobid(error.jobid)
                raise
            else:
                made = self._memory.adopt(job)
                count_submit("made", queued=time.time() - self._memory.queued_since)
                return made

    def _send_once(self, call: Call, files: Mapping[str, ImagePart], reply: Reply, sends: int) -> Job:
        trusted = not self._inputs.get("reply_ref") or self._memory.names_task(reply.ref)
        for _ in range(_INTENTS_LIMIT):
            self._must_live()
            self._intended = self._left = None
            try:
                self._memory.write_anew(
                    reply_ref=reply.ref,
                    mailbox=reply.mailbox,
                    trusted=trusted,
                    asked_at=time.time(),
                    sends=sends,
                    ruled_out=self._ruled_out,
                )
            except PikaError:
                raise
            except Exception:
                # Written in part or unanswered, it would be taken for that of a submit that left.
                self._memory.take_intent_back(reply.mailbox, earlier=self._earlier, ruled_out=self._ruled_out)
                raise
            # From the beginning of the write: a machine that freezes in the middle of it thaws with an intent that
            # others have long read. What was asked before does not count, and may take its time.
            self._intended = self._memory.write_began
            try:
                return self._hook.send(call, files, before_body=self._may_leave, after_body=self._has_left)
            except _StaleIntentError as error:
                self._log.warning("%s", error)
        raise PikaUnavailableError(
            f"Nothing was submitted: {_INTENTS_LIMIT} times it took longer than {INTENT_FRESH:g} s to tell Airflow of"
            f" the submit and to reach {self._hook.settings.base_url}. Look at the load of Airflow's api-server and at"
            " the network of this worker; a retry submits."
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

    def _after_lost_answer(self, error: PikaUnknownOutcomeError, sends: int) -> Job | None:
        """Look for the job of a submit whose answer was lost; return None if it may be sent once more."""
        record = self._memory.record
        if record is None:
            raise error
        # Kept for whoever has to say in the end what came back.
        record = replace(record, lost=error.to_event())
        self._memory.save(record, has_left=True)
        # The record stays: behind a proxy's page for everything the API may have taken the submit.
        wrong_root = self._hook.wrong_root(error)
        if wrong_root:
            raise wrong_root from error.with_traceback(None)
        if not record.is_searchable:
            if self._resubmit_unknown and sends < SENDS_LIMIT:
                return None
            raise unknown_outcome(record, self._hook.pika_conn_id) from error
        self._log.warning("%s Looking for the job.", error)
        # A 504 means that the bot took the job and the service lost track of it: not being listed proves nothing. Nor
        # does it of a job that is known by its replyUrl alone, which the service need not tell.
        may_submit = sends < SENDS_LIMIT and error.status != 504 and record.trusted
        job = self._search.after_lost_answer(record, left=self._left or Moment.now(), may_submit=may_submit)
        self._earlier = replace(record, is_given_up=True, was_proved=True)
        return job
