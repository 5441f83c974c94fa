"""One submit, paid for once: go on with that of an earlier attempt, else make one.

The story of every state is told in ``docs/never-twice.md``; what follows from each is decided in
:mod:`airflow_provider_pika.api.recovery`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_pika.api.job import Job
from airflow_provider_pika.api.polling import NOT_FOUND_LIMIT, when
from airflow_provider_pika.api.recovery import (
    FORGOTTEN_AFTER,
    Next,
    Record,
    after_reading,
    after_search,
    digest,
)
from airflow_provider_pika.exceptions import PikaNotFoundError
from airflow_provider_pika.operators.memory import SubmitMemory
from airflow_provider_pika.operators.search import TRANSIENT, JobSearch, unknown_outcome
from airflow_provider_pika.operators.sending import SENDS_LIMIT, Sending

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.types import Logger

    from airflow_provider_pika.api.commands import Call
    from airflow_provider_pika.hooks.pika import PikaHook
    from airflow_provider_pika.operators.reply import Reply


class Submission:
    """
    The submit of one task instance.

    :param inputs: the rendered inputs of the submit
    :param prepare: checks them and returns the call that sends them to where its job is to report
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
        prepare: Callable[[Reply], Call],
        resubmit_unknown: bool,
        retry_failed: bool,
        keep_completed: bool,
        queued_since: float | None,
        resumed: bool,
        tell_jobid: Callable[[str], None],
        log: Logger,
    ) -> None:
        self.hook = hook
        self.log = log
        self.memory = SubmitMemory(
            context,
            inputs=digest(inputs),
            queued_since=queued_since,
            resumed=resumed,
            tell_jobid=tell_jobid,
            log=log,
        )
        self._resubmit_unknown = resubmit_unknown
        self._retry_failed = retry_failed
        self._keep_completed = keep_completed
        self._search = JobSearch(hook, self.memory, log)
        self._sending = Sending(
            hook, self.memory, self._search, inputs=inputs, prepare=prepare, resubmit_unknown=resubmit_unknown, log=log
        )

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
            job = self._intended_job(record)
        return job or self._sending.submit()

    def kill(self) -> None:
        """Send nothing more. Airflow lets a process go on for some seconds after a SIGTERM."""
        self._search.killed = True

    # Going on with an earlier attempt's submit

    def _known_job(self, record: Record, jobid: str) -> Job | None:
        cleared = self.memory.cleared
        if not cleared:
            self.memory.tell_jobid(jobid)
        try:
            job = self.hook.get_job(jobid)
        except PikaNotFoundError:
            fresh = time.time() - record.asked_at < FORGOTTEN_AFTER
            if cleared and fresh and self.memory.has_same_inputs and record.polls < NOT_FOUND_LIMIT - 1:
                # It may be unknown for a moment only, and running: a clear keeps a job that runs.
                self._search.reschedule(record, None)
            if cleared:
                self.log.info("The API no longer knows %s of before the clear: a new one is made.", jobid)
                return None
            if not fresh:
                raise
            # The service may not show it yet; whoever waits for it knows how to tolerate that.
            job = Job(jobid, "started", {"jobid": jobid})
        except TRANSIENT as error:
            self._search.reschedule(record, error)
        return self._go_on(job)

    def _go_on(self, job: Job) -> Job | None:
        """Take the job of an earlier attempt as it stands; return None if a new one is to be made."""
        step = after_reading(
            job,
            cleared=self.memory.cleared,
            same_inputs=self.memory.has_same_inputs,
            retry_failed=self._retry_failed,
            keep_completed=self._keep_completed,
        )
        self.log.info("An earlier attempt submitted %s, which is %s: %s.", job.jobid, job.status, step.value)
        if step is Next.SUBMIT:
            # It may still run, under the same reference if that is the user's own: it is not the one to be made now.
            self._sending.rule_out(job.jobid)
            # While it ran, this task was in no queue.
            self.memory.queued_since = time.time()
            return None
        # One that ended badly is this task's own, too: whoever called raises what that means.
        return self.memory.adopt(job)

    def _intended_job(self, record: Record) -> Job | None:
        """Look for the job of a submit whose answer nobody has seen; return None if a new one is to be made."""
        asked = when(record.asked_at)
        self.log.warning("A submit was sent at %s and its answer is not known: looking for its job.", asked)
        if self.memory.cleared and not self.memory.has_same_inputs:
            self.log.info("The inputs have changed since, and a person has cleared the task: a new job is made.")
            return None
        counted = record
        self._search.rule_out(*record.ruled_out)
        if record.is_searchable:
            try:
                job = self._search.find(record)
            except TRANSIENT as error:
                self._search.reschedule(record, error)
            if job:
                # What this very try has made is its job, however it ended; a retry is the next try's to make.
                return self.memory.adopt(job) if self.memory.is_of_this_try(record) else self._go_on(job)
            # A submit given up is only looked for once before each new one; that poll is not counted.
            if self._search.unread or not record.is_given_up:
                counted = self.memory.counted(record, went_through=True)
        step = after_search(
            record,
            polls=counted.polls,
            cleared=self.memory.cleared,
            resubmit_unknown=self._resubmit_unknown and self.memory.sends() < SENDS_LIMIT,
            unread=self._search.unread is not None,
        )
        if step is Next.RESCHEDULE:
            self.log.info("No running job carries its reference (poll %d).", counted.polls)
            self._search.reschedule(record, None)
        # The submit in its place may meet a full queue, and while it waits the service may call back for this one.
        if step is Next.SUBMIT:
            was_proved = record.was_proved and not self._search.unread and not self.memory.cleared
            # If a doubt comes up later, a whole search follows (0 polls). One that has just been waited out keeps its
            # count, so that it is not waited out again.
            polls = counted.polls if self._search.unread else 0
            counted = replace(counted, is_given_up=True, was_proved=was_proved, polls=polls)
        else:
            counted = replace(counted, is_given_up=False, was_proved=False)
        self.memory.save(counted, has_left=True)
        self.log.warning("No running job carries the reference of the submit of %s: %s.", asked, step.value)
        if step is Next.FAIL:
            raise unknown_outcome(counted, self.hook.pika_conn_id, unread=self._search.unread)
        return None
