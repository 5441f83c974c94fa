"""One submit, paid for once: remember the intent, send, remember the jobid; find it again after a crash."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow_provider_pika.api.adoption import (
    SEARCH_PAUSE,
    SEARCH_TIME,
    YOUNG,
    Next,
    Record,
    after_reading,
    after_searching,
    digest,
    names_task,
)
from airflow_provider_pika.api.errors import MAY_EXIST
from airflow_provider_pika.api.job import Job
from airflow_provider_pika.api.polling import MIN_RESCHEDULE, when
from airflow_provider_pika.compat import conf, count_submit, task_state_store
from airflow_provider_pika.exceptions import (
    PikaError,
    PikaNotFoundError,
    PikaQueueFullError,
    PikaRateLimitedError,
    PikaUnavailableError,
    PikaUnknownOutcomeError,
)

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.types import Logger

    from airflow_provider_pika.hooks.multipart import ImagePart
    from airflow_provider_pika.hooks.pika import PikaHook

SUBMIT_KEY = "pika_submit"
_GATEWAY_TIMEOUT = 504
# A worker is not held longer than this between two looks for an earlier job.
LONGEST_PAUSE = 60.0
_OUTCOMES: dict[type[PikaError], str] = {PikaQueueFullError: "queue_full", PikaRateLimitedError: "rate_limited"}


class Submission:
    """
    The submit of one task instance.

    :param inputs: the rendered inputs, as keyword arguments of :meth:`PikaHook.encrypt_text`
    :param resubmit_unknown: submit again although an earlier submit's outcome cannot be found out
    :param queued_since: when this try joined the line, if it comes back from waiting there
    :param tell_jobid: called with the jobid as soon as one is known
    """

    def __init__(
        self,
        context: Context,
        *,
        hook: PikaHook,
        inputs: dict[str, Any],
        resubmit_unknown: bool,
        queued_since: float | None,
        tell_jobid: Callable[[str], None],
        log: Logger,
    ) -> None:
        self.hook = hook
        self.log = log
        self._inputs = inputs
        self._digest = digest(inputs)
        self._resubmit_unknown = resubmit_unknown
        self._tell_jobid = tell_jobid
        self._context = context
        self._ti = context["ti"]
        self._store = task_state_store(context)
        kept = self._store.get(SUBMIT_KEY) if self._store else None
        self._record = Record.from_json(kept) if kept else None
        # Every clear raises max_tries, a retry or a reschedule never does. (One clear does not: of a running task whose
        # executor then reports a failure. It looks like a retry, which errs on the side of not paying again.)
        self.cleared = self._record is not None and self._record.max_tries != self._ti.max_tries
        self._back_in_try = queued_since is not None or bool(context.get("task_reschedule_count"))
        self.queued_since = self._queued_since() if queued_since is None else queued_since
        self._strangers: set[str] = set()
        self.killed = False

    def job(self) -> Job:
        """
        Return this task's job: the one of an earlier attempt, or a new one.

        :raises PikaError: as the hook does; a submit of unknown outcome only after looking for its job
        """
        return self._patiently(self._earlier_job) or self._submit()

    @property
    def jobid_of_this_try(self) -> str | None:
        """The job this very try submitted or adopted: it comes back from a reschedule, not from a crash."""
        record = self._record
        if record is None or self.cleared or record.try_number != self._ti.try_number:
            return None
        return record.jobid

    def _queued_since(self) -> float:
        if self._record and not self.cleared:
            return self._record.queued_since
        if self._store:
            return time.time()
        first = self._ti.get_first_reschedule_date(self._context)
        return first.timestamp() if first else time.time()

    def _earlier_job(self) -> Job | None:
        record = self._record
        if record is None:
            return self._storeless_job()
        if record.jobid:
            return self._known_job(record, record.jobid)
        if record.reply_ref:
            return self._intended_job(record)
        return None

    def _known_job(self, record: Record, jobid: str) -> Job | None:
        same_inputs = record.inputs == self._digest
        if not self.cleared:
            self._tell_jobid(jobid)
        try:
            job = self.hook.get_job(jobid)
        except PikaNotFoundError:
            if self.cleared:
                self.log.info("The API no longer knows job %s of before the clear: a new one is made.", jobid)
                return None
            if time.time() - record.asked_at >= YOUNG:
                raise
            # So fresh that the service may not show it yet; whoever waits for it knows how to tolerate that.
            job = Job(jobid, "started", {"jobid": jobid})
        step = after_reading(job, cleared=self.cleared, same_inputs=same_inputs)
        self.log.info("An earlier attempt submitted job %s, which is %s: %s.", jobid, job.status, step.value)
        if step is Next.FAIL:
            raise self.hook.job_failed(job)
        if step is Next.SUBMIT:
            # It may still run, under the same reference if that is the user's own: it is not the one to be made now.
            self._strangers.add(jobid)
            return None
        if not same_inputs:
            self._warn_of_inputs(jobid)
        return self._keep_job(job, asked_at=record.asked_at, inputs=record.inputs)

    def _warn_of_inputs(self, jobid: str) -> None:
        self.log.warning("The inputs have changed since job %s was submitted; it is used all the same.", jobid)

    def _intended_job(self, record: Record) -> Job | None:
        reply_ref = record.reply_ref or ""
        self.log.warning(
            "An earlier attempt set out to submit at %s and left no jobid: looking for its job.", when(record.asked_at)
        )
        if self.cleared and record.inputs != self._digest:
            self.log.info("The inputs have changed since, and a person has cleared the task: a new job is made.")
            return None
        job = self._find_until(record.asked_at + SEARCH_TIME, reply_ref) if record.trusted else None
        if job:
            if record.inputs != self._digest:
                self._warn_of_inputs(job.jobid)
            return self._keep_job(job, asked_at=record.asked_at, inputs=record.inputs)
        age = time.time() - record.asked_at
        step = after_searching(
            age=age,
            complete=record.trusted and not record.untracked,
            cleared=self.cleared,
            resubmit_unknown=self._resubmit_unknown,
        )
        self.log.warning("No running job carries its reference, %d s after that submit: %s.", age, step.value)
        if step is Next.FAIL:
            raise PikaUnknownOutcomeError(
                f"A submit was sent at {when(record.asked_at)} and its answer is not known: this task was killed or"
                f" lost its connection. No running job carries its replyRef, but after {YOUNG:g} s it may have run"
                f" and ended. {MAY_EXIST}"
            )
        return None

    def _storeless_job(self) -> Job | None:
        """Below Airflow 3.3 nothing outlives a try: look for the job this task instance's digest marks."""
        if self._store or self._ti.try_number <= 1 or self._back_in_try:
            return None
        self.log.info("This is try %d: looking for a job of an earlier one.", self._ti.try_number)
        reply_ref = self._reply_ref()
        # When the earlier try set out is not known, so the service gets all the time it may need to list a job.
        job = self._find_until(time.time() + SEARCH_TIME, reply_ref) if self._trusts(reply_ref) else None
        if job:
            self._tell_jobid(job.jobid)
        return job

    def _find_until(self, end: float, reply_ref: str) -> Job | None:
        """Look for a job until it is found or would have been listed."""
        while True:
            job = self._find(reply_ref)
            if job or time.time() >= end:
                return job
            time.sleep(SEARCH_PAUSE)

    def _patiently(self, look: Callable[[], Job | None]) -> Job | None:
        """
        Look for an earlier job, a few times if a look fails in passing: what it finds decides about paying again.

        In place, because a rescheduled task of Airflow below 3.3 would not know that it had not looked yet.

        :raises PikaUnavailableError: for a retry, when no look went through
        """
        for last in (False, False, True):
            try:
                return look()
            except (PikaUnavailableError, PikaRateLimitedError) as error:
                pause = max(MIN_RESCHEDULE, error.retry_after or 0.0)
                if last or pause > LONGEST_PAUSE:
                    raise PikaUnavailableError(
                        f"Nothing was submitted: whether an earlier attempt has a job is not known. {error}",
                        status=error.status,
                        error=error.error,
                        details=error.details,
                        jobid=error.jobid,
                        retry_after=error.retry_after,
                    ) from error
                self.log.warning("%s Looking again in %d s.", error, pause)
                time.sleep(pause)
        raise AssertionError("unreachable: the last look returns or raises")

    def _submit(self) -> Job:
        # Before the intent all that can fail without anything having been sent: a bad input, a connection that cannot
        # be read, an image that is slow to fetch while the process is killed.
        fields = {name: value for name, value in self._inputs.items() if name != "image"}
        self.hook.encrypt_text_call(**fields)
        with self.hook.open_image(self._inputs["image"]) as image:
            return self._send(image)

    def _send(self, image: ImagePart | None) -> Job:
        reply_ref = self._reply_ref()
        searched = False
        while True:
            if self.killed:
                # After a SIGTERM Airflow lets the process go on for a few seconds.
                raise PikaUnavailableError("This task is being killed, so nothing was submitted.")
            asked_at = time.time()
            self._keep(reply_ref=reply_ref, trusted=self._trusts(reply_ref), asked_at=asked_at)
            try:
                job = self.hook.encrypt_text(**self._inputs | {"reply_ref": reply_ref, "image": image})
            except PikaUnknownOutcomeError as error:
                count_submit("unknown")
                # This is the one search of a try; a second lost answer ends it.
                if searched:
                    raise
                searched = True
                if error.status == _GATEWAY_TIMEOUT:
                    self._keep(reply_ref=reply_ref, trusted=self._trusts(reply_ref), untracked=True, asked_at=asked_at)
                found = self._search(error, reply_ref, asked_at)
                if found:
                    return self._keep_job(found, asked_at=asked_at, inputs=self._digest)
            except PikaError as error:
                # A refusal: no job was made, or none that runs.
                count_submit(_OUTCOMES.get(type(error), "refused"))
                self._keep()
                if error.jobid:
                    self._tell_jobid(error.jobid)
                raise
            else:
                count_submit("made", queued=time.time() - self.queued_since)
                return self._keep_job(job, asked_at=asked_at, inputs=self._digest)

    def _search(self, error: PikaUnknownOutcomeError, reply_ref: str, asked_at: float) -> Job | None:
        """Look for the job of a submit whose answer was lost; return None if it may be sent once more."""
        complete = False
        if not self._trusts(reply_ref):
            self.log.warning("The reply_ref of this task does not name it alone, so its job cannot be looked for.")
        else:
            self.log.warning("%s Looking for the job for half a minute.", error)
        end = asked_at if not self._trusts(reply_ref) else time.time() + SEARCH_TIME
        while time.time() <= end:
            try:
                job = self._find(reply_ref)
            except PikaError as fault:
                self.log.warning("The look for the job failed: %s", fault)
                complete = False
            else:
                if job:
                    return job
                complete = True
            time.sleep(SEARCH_PAUSE)
        age = time.time() - asked_at
        # A 504 means the bot took the job and the service lost track of it: not being listed proves nothing.
        complete = complete and error.status != _GATEWAY_TIMEOUT
        step = after_searching(age=age, complete=complete, cleared=False, resubmit_unknown=self._resubmit_unknown)
        if step is Next.FAIL:
            raise error
        self.log.warning("No running job carries the reference, %d s after the submit: submitting once more.", age)
        return None

    def _find(self, reply_ref: str) -> Job | None:
        """
        Return the running job that was submitted with this reference.

        :raises PikaError: when a look failed, so that not having found it means nothing
        """
        fault: PikaError | None = None
        for jobid in self.hook.list_jobs():
            if jobid in self._strangers:
                continue
            try:
                job = self.hook.get_job(jobid)
            except PikaNotFoundError as error:
                # Listed, but not to be read yet: it may be the very one.
                fault = PikaUnavailableError(str(error), status=error.status, error=error.error, jobid=jobid)
                continue
            except PikaError as error:
                fault = error
                continue
            if job.raw.get("replyRef") == reply_ref:
                self.log.info("Found job %s, submitted by this task: going on with it.", jobid)
                return job
            self._strangers.add(jobid)
        if fault:
            raise fault
        return None

    def _trusts(self, reply_ref: str) -> bool:
        """Whether a reference, just made or given by the user, names this task instance alone."""
        ti = self._ti
        return reply_ref != self._inputs.get("reply_ref") or names_task(
            reply_ref,
            dag_id=ti.dag_id,
            run_id=ti.run_id,
            task_id=ti.task_id,
            map_index=-1 if ti.map_index is None else ti.map_index,
        )

    def _reply_ref(self) -> str:
        """Return the reference to submit with: the user's, a random one, or where nothing remembers that, a digest."""
        given = self._inputs.get("reply_ref")
        if given:
            return str(given)
        if self._store:
            return f"airflow-{uuid.uuid4().hex}"
        ti = self._ti
        airflow = conf.get("api", "base_url", fallback="")
        return f"airflow-{digest(airflow, ti.dag_id, ti.run_id, ti.task_id, ti.map_index, self._digest)}"

    def _keep_job(self, job: Job, *, asked_at: float, inputs: str) -> Job:
        # The log comes first, because nothing can fail before it; then the store, then XCom.
        self.log.info("The job is %s (%s).", job.jobid, job.status)
        self._keep(jobid=job.jobid, asked_at=asked_at, inputs=inputs)
        self._tell_jobid(job.jobid)
        return job

    def _keep(self, *, inputs: str | None = None, **what: Any) -> None:
        if self._store:
            ti = self._ti
            record = Record(
                max_tries=ti.max_tries,
                try_number=ti.try_number,
                queued_since=self.queued_since,
                inputs=inputs if inputs is not None else self._digest,
                **what,
            )
            self._store.set(SUBMIT_KEY, record.to_json())
