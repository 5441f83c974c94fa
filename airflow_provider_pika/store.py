"""What a task remembers beyond retries, reschedules and kills: one small value a key.

From Airflow 3.3 on that is the task state store. Below there is none, so an Airflow Variable stands in for it, named by
a digest of the task instance and removed once the task has succeeded.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_pika.compat import delete_variable, get_variable, set_variable, task_state

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context

SUBMIT_KEY = "pika_submit"
# Each record is written twice: under SUBMIT_KEY, and under the key of its kind (an intent, nothing under way, a jobid).
# Airflow's client repeats a write that is not answered within seconds, and an api-server that hung may carry out the
# first one half a minute later: "nothing under way", over the jobid of a job paid for meanwhile. Under its own key the
# jobid is safe from that. The record with the highest count is the current one.
OPEN_KEY = "pika_submit_open"
CLOSED_KEY = "pika_submit_closed"
MADE_KEY = "pika_submit_made"
WAIT_KEY = "pika_wait"
# As long as the service keeps a job. Where Airflow's [state_store] default_retention_days is shorter, its cleanup would
# otherwise let a retry or a clear pay once more for a job that is still there.
RETENTION = timedelta(days=31)
_DESCRIPTION = (
    "What a Pika task has paid for or was about to. Removed when the task succeeds; delete it only if its run is gone."
)


class TaskStore(Protocol):
    """JSON values of one task instance, durable once ``set`` returns. What cannot be read or written raises."""

    def get(self, key: str) -> Any:
        """Return the value under a key, None if there is none."""

    def set(self, key: str, value: Any) -> None:
        """Store a value under a key."""

    def delete(self, key: str) -> None:
        """Forget a key."""


def task_state_store(context: Context) -> TaskStore | None:
    """Return Airflow's own store; None below Airflow 3.3."""
    store: TaskStore | None = context.get("task_state_store")
    return store


def task_store(context: Context, *, resumed: bool = False) -> TaskStore:
    """
    Return the store of a task instance whose money hangs on it, on every Airflow.

    :param resumed: whether the task comes back from a deferral
    """
    store, ti = task_state_store(context), context["ti"]
    if store is None:
        return TaskVariables(ti)
    return TaskState(store, earlier=TaskVariables(ti) if has_begun(context, resumed=resumed) else None)


def has_begun(context: Context, *, resumed: bool) -> bool:
    """
    Whether an earlier leg of this task instance has run: so it is but for the first of the first try.

    :param resumed: whether it comes back from a deferral
    """
    return bool(resumed or context["ti"].try_number > 1 or context.get("task_reschedule_count"))


def forget_on_success(context: Context, task: BaseOperator) -> None:
    """
    Have the Variables of a task removed once Airflow knows that it has succeeded.

    Not before: a process that died in between would leave a retry that remembers nothing and pays again. So it is a
    success callback, which Airflow runs once it has reported the success.
    """
    if task_state_store(context) is None:
        ti = context["ti"]

        def forget(_: Context) -> None:
            # Airflow 3.2 runs this too when it has refused the report of success, because the task was cleared or given
            # to another attempt meanwhile: which then must find the job.
            if task_state(ti) == "success":
                TaskVariables(ti).clear()

        task.on_success_callback = [*(task.on_success_callback or ()), forget]


class TaskState:
    """
    Airflow's own store, for what is to be kept as long as a job is.

    :param earlier: where the value was kept if the task began on an Airflow below 3.3, None if it did not
    """

    def __init__(self, store: Any, *, earlier: TaskVariables | None) -> None:
        self._store = store
        self._earlier = earlier

    def get(self, key: str) -> Any:
        """Return the value under a key; what an upgraded Airflow left in a Variable is moved here first."""
        found = self._newest() if key == SUBMIT_KEY else self._store.get(key)
        if found is None and self._earlier and key in (SUBMIT_KEY, WAIT_KEY):
            found = self._earlier.get(key)
            if found is not None:
                if key == SUBMIT_KEY:
                    # Without a count it would be taken for an earlier version's that is newer than all that follows.
                    found = {"written": 0, **found}
                self.set(key, found)
                self._earlier.delete(key)
        return found

    def set(self, key: str, value: Any) -> None:
        """Store a value under a key."""
        if key == SUBMIT_KEY:
            copy = MADE_KEY if value["jobid"] else OPEN_KEY if value["reply_ref"] else CLOSED_KEY
            self._store.set(copy, value, retention=RETENTION)
        self._store.set(key, value, retention=RETENTION)

    def delete(self, key: str) -> None:
        """Forget a key."""
        self._store.delete(key)

    def _newest(self) -> Any:
        # In this order, since an intent that was written in part and its taking back have the same count.
        found = [value for place in (CLOSED_KEY, SUBMIT_KEY, OPEN_KEY, MADE_KEY) if (value := self._store.get(place))]
        # Where one does not say, an earlier version has written it since.
        return max(found, key=lambda record: record.get("written", float("inf")), default=None)


class TaskVariables:
    """Airflow Variables as the store of one task instance."""

    def __init__(self, ti: Any) -> None:
        # Imported here: an operator's module is imported at every DAG parse, and this is for what runs.
        from airflow_provider_pika.api.recovery import digest

        self._ti = ti
        map_index = -1 if ti.map_index is None else ti.map_index
        self._name = digest(ti.dag_id, ti.run_id, ti.task_id, map_index)[:40]

    def get(self, key: str) -> Any:
        """Return the value under a key; a Variable that cannot be read raises, it is not an absent one."""
        name = f"{key}__{self._name}"
        text = get_variable(name)
        if text is None:
            # Asked twice: a query that fails in the api-server (its database is away, or was restarted) is answered
            # there as "not found", and money hangs on that. The question in between fails loudly.
            task_state(self._ti)
            text = get_variable(name)
        return None if text is None else json.loads(text)

    def set(self, key: str, value: Any) -> None:
        """Store a value under a key."""
        set_variable(f"{key}__{self._name}", json.dumps(value), _DESCRIPTION)

    def delete(self, key: str) -> None:
        """Remove a key's Variable."""
        delete_variable(f"{key}__{self._name}")

    def clear(self) -> None:
        """Remove all of them."""
        for key in (SUBMIT_KEY, WAIT_KEY):
            if self.get(key) is not None:
                self.delete(key)
