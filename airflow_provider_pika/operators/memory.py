"""What a task instance remembers of its submit, read once and kept in step with its store."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_pika.api.callback import new_mailbox
from airflow_provider_pika.api.recovery import SEARCH_POLLS, Record, names_task
from airflow_provider_pika.compat import task_state
from airflow_provider_pika.exceptions import PikaUnavailableError
from airflow_provider_pika.operators.moment import Moment
from airflow_provider_pika.store import SUBMIT_KEY, WAIT_KEY, has_begun, task_state_store, task_store

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.types import Logger
    from tenacity import RetryCallState, Retrying

    from airflow_provider_pika.api.job import Job


# How often what nobody else knows (a jobid, or that nothing was made) is written again, and after how many seconds: for
# as long as Airflow lets a process live whose supervisor cannot reach the api-server.
RECORD_TRIES = 10
RECORD_PAUSE = 5.0
# In place of max_tries, of which it is none.
_ANOTHER_RUN = -1


class SubmitMemory:
    """
    The record of one task instance's submit.

    :param inputs: digest of the rendered inputs
    :param queued_since: when this try joined the queue, if it comes back from waiting there
    :param resumed: whether it comes back from a deferral
    :param tell_jobid: called with the jobid as soon as one is known
    """

    def __init__(
        self,
        context: Context,
        *,
        inputs: str,
        queued_since: float | None,
        resumed: bool,
        tell_jobid: Callable[[str], None],
        log: Logger,
    ) -> None:
        self.log = log
        self.inputs = inputs
        self.tell_jobid = tell_jobid
        self.ti: Any = context["ti"]
        self._store = task_store(context, resumed=resumed)
        self.has_state_store = task_state_store(context) is not None
        self._run_started = str(getattr(context.get("dag_run"), "start_date", None))
        self._stored: dict[str, Any] | None = self._store.get(SUBMIT_KEY)
        self.record = Record.from_json(self._stored) if self._stored else None
        self._written = self.record.written if self.record else 0
        self.write_began: Moment | None = None
        # All that this process has read or tried to write: one of these may be written late.
        self._known = [self._stored] if self._stored else []
        # Every clear raises max_tries, a retry or a reschedule never does. (One clear does not: of a running task whose
        # executor then reports a failure. It looks like a retry, which errs on the side of not paying again.)
        self.cleared = self.record is not None and self.record.max_tries != self.ti.max_tries
        if self.record and self._is_of_another_run(self.record, begun=has_begun(context, resumed=resumed)):
            self._begin_anew(self.record)
        self.queued_since = self._queued_since(context) if queued_since is None else queued_since

    def _is_of_another_run(self, record: Record, *, begun: bool) -> bool:
        """
        Whether a record is that of a deleted run of the same name, which below Airflow 3.3 outlives it.

        It is found by the first leg of a first try, and names another task instance and another start of the run. No
        one of these is enough: Airflow can start that leg twice, where a task that was long in the queue is put back
        into it as it starts; and ``airflow tasks test`` runs a retry, which has an id of its own, as a first try.
        """
        if self.has_state_store or begun or record.ti_id is None:
            return False
        return record.ti_id != str(self.ti.id) and record.run_started != self._run_started

    def _begin_anew(self, record: Record) -> None:
        """Take a record as after a clear: to make a run again is a person's word, too."""
        self.cleared = True
        # At once: a first try that dies before its own intent would leave it to a retry, which takes it for its own.
        insist = self._insist("What a deleted run has left could not be marked yet")
        insist(self.save, replace(record, max_tries=_ANOTHER_RUN, searched_by=0), has_left=True)
        if self._store.get(WAIT_KEY) is not None:
            self._store.delete(WAIT_KEY)

    def _queued_since(self, context: Context) -> float:
        if self.record and not self.cleared:
            return self.record.queued_since
        first = None if self.has_state_store else self.ti.get_first_reschedule_date(context)
        return first.timestamp() if first else time.time()

    @property
    def jobid_of_this_try(self) -> str | None:
        """The job this very try submitted or adopted: it comes back from a reschedule, not from a crash."""
        return self.record.jobid if self.record and self.is_of_this_try(self.record) else None

    @property
    def has_same_inputs(self) -> bool:
        """Whether what is remembered was submitted on what is asked for now."""
        return self.record is not None and self.record.inputs == self.inputs

    def sends(self) -> int:
        """Return how many submits of unknown outcome this try has sent."""
        return self.record.sends if self.record and self.is_of_this_try(self.record) else 0

    def is_of_this_try(self, record: Record) -> bool:
        """Whether this very try wrote a record, in an earlier leg."""
        return not self.cleared and record.try_number == self.ti.try_number

    def _wrote(self, record: Record) -> bool:
        return (record.max_tries, record.try_number) == (self.ti.max_tries, self.ti.try_number)

    def given_up(self) -> Record | None:
        """Return the submit that was given up, unless a person has cleared the task to make something else."""
        record = self.record
        kept = record and record.is_given_up and (self.has_same_inputs or not self.cleared)
        return record if kept else None

    def names_task(self, reply_ref: str) -> bool:
        """Whether a user's own reference names this task instance alone."""
        ti = self.ti
        return names_task(
            reply_ref,
            dag_id=ti.dag_id,
            run_id=ti.run_id,
            task_id=ti.task_id,
            map_index=-1 if ti.map_index is None else ti.map_index,
        )

    def counted(self, record: Record, *, went_through: bool) -> Record:
        """Return a record with one more poll of its search; each try searches anew unless the search was over."""
        if record.searched_by != self.ti.try_number and record.polls < SEARCH_POLLS:
            record = replace(record, polls=0, transient_errors=0)
        return replace(
            record,
            searched_by=self.ti.try_number,
            polls=record.polls + went_through,
            transient_errors=0 if went_through else record.transient_errors + 1,
        )

    def write_anew(self, *, inputs: str | None = None, **what: Any) -> Record:
        """Write the record anew, as of this try; return it once it is durable."""
        record = Record(
            max_tries=self.ti.max_tries,
            try_number=self.ti.try_number,
            queued_since=self.queued_since,
            inputs=self.inputs if inputs is None else inputs,
            ti_id=str(self.ti.id),
            run_started=self._run_started,
            **what,
        )
        return self.save(record)

    def save(self, record: Record, *, has_left: bool = False) -> Record:
        """
        Write a record, unless another attempt has written since; return it as it was written, once it is durable.

        Airflow 3.3 fences a stale try by itself: its writes fail. Below, a process that was frozen and thawed could
        write over the jobid that another attempt has paid for.

        :param has_left: whether it is of a submit that may have left, and whose job is to be looked for
        :raises PikaUnavailableError: when another attempt has taken the task over
        """
        record = replace(record, written=self._written + 1)
        found = self._store.get(SUBMIT_KEY)
        if found is None and not (record.is_open or self.has_state_store):
            return record  # nothing is to be kept, and nothing is there
        if self._is_taken_over(found, record, has_left=has_left):
            raise PikaUnavailableError("Nothing more is submitted: another attempt has taken this task over.")
        self._known.append(record.to_json())
        self.write_began = Moment.now()
        # Below Airflow 3.3 a Variable is kept only while money hangs on it, not for a place in the queue.
        if record.is_open or self.has_state_store:
            self._store.set(SUBMIT_KEY, record.to_json())
            self._stored = record.to_json()
        elif found is not None:
            self._store.delete(SUBMIT_KEY)
            self._stored = None
        self._written = record.written
        self.record = record
        return record

    def _is_taken_over(self, found: dict[str, Any] | None, record: Record, *, has_left: bool) -> bool:
        """
        Whether another attempt has written since this process has.

        :param found: what is there now
        :param record: what is to be written
        :param has_left: whether a submit of this process has left
        """
        if found is None:
            # Below Airflow 3.3 an attempt that has succeeded has removed its record.
            done = not self.has_state_store and not record.jobid and task_state(self.ti) == "success"
            return done or (self._stored is not None and not (record.jobid or has_left))
        if found in self._known or (self.has_state_store and found.get("written", self._written) < self._written):
            return False
        if record.jobid and record.max_tries != _ANOTHER_RUN:
            # Only a later try with a job or a submit of its own keeps this jobid out of the store. One that merely
            # counts polls looks for this very jobid, and what an earlier try or leg wrote has come late.
            own = self.record.reply_ref if self.record else None
            return found["try_number"] > self.ti.try_number and (found["jobid"] or found["reply_ref"]) not in (
                None,
                own,
            )
        return True

    def adopt(self, job: Job) -> Job:
        """
        Remember a job as this task's own, one just made or one found, and tell of it.

        The log comes first, because nothing can fail before it; then the store, then XCom. While Airflow's database is
        restarted this process is the only one that knows the jobid, so the store is asked again and again.

        :raises PikaUnavailableError: when it could not be recorded; a later attempt finds it
        """
        self.log.info("The job is %s (%s).", job.jobid, job.status)
        record = self.record
        kept: dict[str, Any] = {"asked_at": time.time(), "inputs": self.inputs}
        if record:
            kept = {name: getattr(record, name) for name in ("asked_at", "inputs", "mailbox", "ruled_out")}
        if kept["inputs"] != self.inputs:
            self.log.warning("The inputs have changed since %s was submitted; it is used all the same.", job.jobid)
        try:
            self._insist("The jobid could not be recorded yet")(self.write_anew, jobid=job.jobid, **kept)
        except Exception as error:
            raise PikaUnavailableError(
                f"{job.jobid} could not be recorded: {error} The job was made and paid for: keep this jobid. A retry"
                " looks for the job.",
                jobid=job.jobid,
            ) from error
        self.tell_jobid(job.jobid)
        return job

    def _insist(self, complaint: str) -> Retrying:
        from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_fixed

        def told(attempt: RetryCallState) -> None:
            error = attempt.outcome.exception() if attempt.outcome else None
            self.log.warning("%s: %r", complaint, error)

        return Retrying(
            stop=stop_after_attempt(RECORD_TRIES),
            wait=wait_fixed(RECORD_PAUSE),
            # Not a signal's, and not what another attempt has written, which stands.
            retry=retry_if_exception(lambda e: isinstance(e, Exception) and not isinstance(e, PikaUnavailableError)),
            before_sleep=told,
            sleep=time.sleep,
            reraise=True,
        )

    def take_intent_back(self, mailbox: str | None, *, earlier: Record | None, ruled_out: tuple[str, ...]) -> None:
        """
        Forget an intent of which nothing has left, or which was refused: nobody will be called back for it.

        :param mailbox: the one opened for it
        :param earlier: an earlier submit that was given up, which may still be called back for
        :param ruled_out: jobs that are not the one to be made
        """
        # One write that failed would have a later attempt search in vain, and fail for good, after a mere full queue.
        insist = self._insist("The intent could not be taken back yet")
        try:
            if earlier:
                # As of this try, or a clear would begin anew with each leg, and the queue's timeout with it.
                insist(
                    self.save,
                    replace(
                        earlier,
                        max_tries=self.ti.max_tries,
                        try_number=self.ti.try_number,
                        queued_since=self.queued_since,
                        sends=earlier.sends if self._wrote(earlier) else 0,
                        ruled_out=ruled_out,
                    ),
                )
            else:
                insist(self.write_anew, ruled_out=ruled_out)
            if mailbox and not (earlier and earlier.mailbox == mailbox):
                self._store.delete(mailbox)
        except Exception as error:  # noqa: BLE001 - what the submit itself met is the news, and the intent errs on the safe side
            self.log.warning("The intent could not be taken back; a later attempt will look for its job: %r", error)

    # The mailbox is written here before a submit, and then only by the api-server.

    def open_mailbox(self, key: str | None, reply_ref: str) -> None:
        """Open the mailbox of a submit to come, if it has one, in place of that of the submit it replaces."""
        if self.record and self.record.mailbox and not self.given_up():
            self._store.delete(self.record.mailbox)
        if key:
            self._store.set(key, new_mailbox(reply_ref))

    def called_back(self, record: Record) -> tuple[list[str], list[str]]:
        """
        Return the jobids that callbacks for a submit have named.

        First those of calls that named its reference as well. The others can have come from whoever knows its URL. A
        mailbox that holds no reference to compare with cannot tell them apart: there all count as the former.
        """
        held = (self._store.get(record.mailbox) if record.mailbox else None) or {"jobids": []}
        named, others = held.get("own", {"jobids": []})["jobids"], held["jobids"]
        if "ref" not in held:
            return [str(jobid) for jobid in others], []
        return [str(jobid) for jobid in named], [str(jobid) for jobid in others if jobid not in named]
