"""Looking for the job of a submit whose answer nobody has seen, right after it was lost or in a later attempt."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from airflow_provider_pika.api.advice import may_exist
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
from airflow_provider_pika.exceptions import (
    PikaError,
    PikaModeratedError,
    PikaNotFoundError,
    PikaRateLimitedError,
    PikaRequestError,
    PikaUnavailableError,
    PikaUnknownOutcomeError,
)
from airflow_provider_pika.operators.moment import Moment
from airflow_provider_pika.waiting import later_leg

if TYPE_CHECKING:
    from airflow.sdk.types import Logger

    from airflow_provider_pika.api.job import Job
    from airflow_provider_pika.hooks.pika import PikaHook
    from airflow_provider_pika.operators.memory import SubmitMemory

TRANSIENT = (PikaUnavailableError, PikaRateLimitedError)
KILLED = "This task is being killed, so nothing more is submitted."


class _Named(Enum):
    """By whom a job is named that may be the one that is looked for."""

    LISTED = "the list of running jobs"
    CALLED = "a callback that named the submit's reference as well"
    HINTED = "another call of the submit's URL, which may be anybody's who has read it somewhere"


class _Found(NamedTuple):
    """
    What came of reading such jobs.

    :param job: the one
    :param unread: why of one of them nobody can tell yet whether it is the one
    :param fails: whether that makes the poll one that failed
    """

    job: Job | None = None
    unread: PikaError | None = None
    fails: bool = False


class JobSearch:
    """
    The search for the job that carries a submit's reference.

    It holds a worker only while one more submit is still possible; else it leaves and comes back with a later leg.

    After a poll, ``unread`` is why nobody can tell yet whether a job that was called back for is the one; None if there
    is no such job.
    """

    def __init__(self, hook: PikaHook, memory: SubmitMemory, log: Logger) -> None:
        self.killed = False
        self.unread: PikaError | None = None
        self._hook = hook
        self._memory = memory
        self._log = log
        self._ruled_out: set[str] = set()
        self._nameless: set[str] = set()
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
                told = self._told(record)
                if told.unread:
                    self.reschedule(record, told.unread)
                return told.job
            pause = max(IN_PLACE_PAUSE, (transient.retry_after or 0.0) if transient else 0.0)
            if step is Next.RESCHEDULE or pause > POLL_GAP_LIMIT:
                self.reschedule(record, transient)
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
        told = self._told(record)
        self.unread = told.unread
        if told.job:
            return told.job
        listed = self._hook.list_jobs()
        self._answered = Moment.now()
        found = self._own(listed, record, _Named.LISTED)
        if found.job:
            return found.job
        for each in (found, told):
            if each.fails and each.unread:
                raise each.unread
        if told.unread:
            self._log.warning("%s", told.unread)
        return None

    def _told(self, record: Record) -> _Found:
        """Look for the job among those that the mailbox names."""
        try:
            called, hinted = self._memory.called_back(record)
        except Exception as error:  # noqa: BLE001 - the store's own errors, while the list may still tell
            self._log.warning("The mailbox of callbacks could not be read: %r", error)
            unread = PikaUnavailableError(f"The mailbox of callbacks could not be read ({type(error).__name__}).")
            return _Found(unread=unread, fails=True)
        found = self._own(called, record, _Named.CALLED)
        if found.job:
            return found
        hint = self._own(hinted, record, _Named.HINTED)
        return hint if hint.job or hint.fails or not found.unread else found

    def _own(self, jobids: Iterable[str], record: Record, named: _Named) -> _Found:
        """Return which of these jobs a submit has made, as far as it can be told."""
        found = _Found()
        for jobid in jobids:
            if jobid in self._ruled_out or (named is _Named.LISTED and jobid in self._nameless):
                continue
            job = None
            try:
                job = self._hook.get_job(jobid)
            except (PikaNotFoundError, PikaRequestError, PikaModeratedError) as error:
                if error.status not in (None, 400):
                    # Listed or called back for, but not to be read yet: it may be the very one.
                    unread = PikaUnavailableError(str(error), status=error.status, error=error.error, jobid=jobid)
                    found = self._unread(found, unread, named)
                    continue
                # No jobid at all.
                if named is _Named.LISTED:
                    raise
            except TRANSIENT as error:
                found = self._unread(found, error, named)
                continue
            if job and record.is_own(job):
                self._log.info("Found %s, submitted by this task: going on with it.", jobid)
                return _Found(job)
            if job and not job.raw.get("replyRef"):
                # Every field of the API is optional. Of the running jobs many have none, and one look is enough; but
                # beside one that was called back for nothing is submitted: it may be the very one.
                self._nameless.add(jobid)
                if named is not _Named.LISTED and not found.unread:
                    nobody_knows = f"{jobid} was read without a replyRef: nobody can tell yet whose it is."
                    found = _Found(unread=PikaUnavailableError(nobody_knows, jobid=jobid))
                continue
            self.rule_out(jobid)
            if named is not _Named.LISTED:
                self._strangers.append(jobid)
        return found

    @staticmethod
    def _unread(found: _Found, error: PikaError, named: _Named) -> _Found:
        """
        Add to what was found that a job could not be read.

        What the API does not know, and what may be anybody's word, must not keep a search from ever coming to its end.
        """
        fails = named is _Named.LISTED or (named is _Named.CALLED and error.status != 404)
        # The whole account is asked to wait.
        fails = fails or isinstance(error, PikaRateLimitedError)
        return _Found(unread=error, fails=fails) if fails or not found.unread else found

    def reschedule(self, record: Record, transient: PikaError | None) -> NoReturn:
        """
        Count a poll and leave the worker until the next one; the record is kept.

        :param transient: how the poll failed, None if it went through
        :raises PikaUnavailableError: for a retry, when too many have failed in a row
        """
        record = replace(record, ruled_out=(*record.ruled_out, *self._strangers))
        record = self._memory.counted(record, went_through=transient is None)
        gave_up = transient is not None and record.transient_errors >= TRANSIENT_LIMIT
        self._memory.save(record, has_left=True)
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
        raise later_leg(pause)


def unknown_outcome(record: Record, conn_id: str, *, unread: PikaError | None = None) -> PikaUnknownOutcomeError:
    """
    Return the error for a submit whose job was not found, with what came back of it.

    :param unread: why one that was called back for, and may be it, could not be told from others
    """
    searched = "Its reply_ref is one that other tasks may share, so its job cannot be looked for."
    if record.is_searchable:
        called = ", nor one that was called back for" if record.mailbox else ""
        searched = (
            f"In {record.polls} polls no running job carried its replyRef{called}, but it may have run and ended."
        )
        if unread:
            searched += f" Nobody can tell whether one that was called back for is this task's: {unread}"
    # What came back, as it was worded then, says itself what to do.
    never = f"Its answer was never recorded. {may_exist(conn_id)}"
    lost = PikaError.from_event(record.lost) if record.lost else PikaError(never)
    return PikaUnknownOutcomeError(
        f"Outcome unknown: a submit was sent at {when(record.asked_at)} and its answer is not known. {searched} {lost}",
        status=lost.status,
        error=lost.error,
        details=lost.details,
    )
