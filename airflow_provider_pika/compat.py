"""What differs between the Airflow versions we support, in one place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from airflow.sdk import BaseOperator

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow.sdk.configuration import conf
    from airflow.sdk.exceptions import (
        AirflowFailException,
        AirflowNotFoundException,
        AirflowRescheduleException,
        AirflowSensorTimeout,
        AirflowSkipException,
    )

else:
    try:
        from airflow.sdk.configuration import conf
        from airflow.sdk.exceptions import (
            AirflowFailException,
            AirflowNotFoundException,
            AirflowRescheduleException,
            AirflowSensorTimeout,
            AirflowSkipException,
        )
    except ImportError:  # Airflow 3.1
        from airflow.configuration import conf
        from airflow.exceptions import (
            AirflowFailException,
            AirflowNotFoundException,
            AirflowRescheduleException,
            AirflowSensorTimeout,
            AirflowSkipException,
        )

__all__ = [
    "AirflowFailException",
    "AirflowNotFoundException",
    "AirflowRescheduleException",
    "AirflowSensorTimeout",
    "AirflowSkipException",
    "conf",
    "delete_variable",
    "get_variable",
    "has_variable_keys",
    "set_variable",
    "stats",
    "stored_values",
    "task_state",
    "variable_keys",
    "why_a_worker_must_end",
]


class StoredValue(NamedTuple):
    """
    What a task keeps in Airflow's task state store.

    :param map_index: -1 of a task that is not mapped
    :param text: the value as it was written, JSON
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    text: str


def stored_values(key: str, holding: Collection[str]) -> list[StoredValue]:
    """
    Return what tasks keep under a key, of all runs, last written first; none below Airflow 3.3, which has no store.

    Asks Airflow's database itself, so neither a worker nor a triggerer can.

    :param holding: only values that have at least one of these texts in them
    :raises SQLAlchemyError: when there is no database, or one that cannot be read
    """
    try:
        from airflow.models.task_state_store import TaskStateStoreModel as Row
    except ImportError:
        return []
    from airflow.utils.session import create_session
    from sqlalchemy import or_, select

    rows: Any = Row  # Airflow 3.4 has renamed a column.
    map_index = rows.map_index if hasattr(rows, "map_index") else rows.region_index
    columns = rows.dag_id, rows.run_id, rows.task_id, map_index, rows.value
    holds = or_(*(rows.value.contains(text, autoescape=True) for text in holding))
    with create_session(scoped=False) as session:
        found = session.execute(select(*columns).where(rows.key == key, holds).order_by(rows.updated_at.desc()))
        return [StoredValue(*row) for row in found]


def get_variable(key: str) -> str | None:
    """
    Read a Variable that this provider has written; None if there is none.

    Asked of the api-server itself: ``Variable.get`` tries every secrets backend first, and takes each failure, that of
    reaching the api-server too, for "not found". Money hangs on that difference.

    :raises AirflowRuntimeError: when it cannot be told whether there is one
    """
    from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
    from airflow.sdk.execution_time.comms import ErrorResponse, GetVariable, VariableResult

    try:
        answer = _ask_supervisor(GetVariable(key=key))
    except AirflowRuntimeError as error:
        answer = error.error
    if isinstance(answer, VariableResult):
        return answer.value
    if isinstance(answer, ErrorResponse) and answer.error is ErrorType.VARIABLE_NOT_FOUND:
        return None
    raise AirflowRuntimeError(answer if isinstance(answer, ErrorResponse) else ErrorResponse())


def set_variable(key: str, value: str, description: str) -> None:
    """
    Write a Variable, durable once this returns.

    ``Variable.set`` of Airflow 3.1 and 3.2 logs a failed write and goes on, which here would be a submit without an
    intent.

    :raises AirflowRuntimeError: when it could not be written
    """
    from airflow.sdk.execution_time.comms import PutVariable

    _ask_supervisor(PutVariable(key=key, value=value, description=description))


def delete_variable(key: str) -> None:
    """Remove a Variable."""
    from airflow.sdk.execution_time.comms import DeleteVariable

    _ask_supervisor(DeleteVariable(key=key))


def has_variable_keys() -> bool:
    """Whether this Airflow lists the keys of Variables (3.3 and later), by which a triggerer hears of callbacks."""
    from airflow.sdk import Variable

    return hasattr(Variable, "keys")


def variable_keys(prefix: str) -> list[str]:
    """
    Return the keys of all Variables that begin so; Airflow asks its database only, a thousand keys at a time.

    :raises AirflowRuntimeError: when the api-server cannot be asked
    """
    from airflow.sdk import Variable

    return list(Variable.keys(prefix=prefix))


def task_state(ti: Any) -> str | None:
    """
    Ask Airflow for the state of a task instance, from a worker or a triggerer.

    On a kill it tells the reason, and nothing else does: ``success`` is a person's mark, ``restarting`` is a clear,
    ``running`` a node that goes down.

    :raises AirflowRuntimeError: when the api-server cannot be asked, or cannot ask its database
    """
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    mapped = ti.map_index is not None and ti.map_index >= 0
    states = RuntimeTaskInstance.get_task_states(
        dag_id=ti.dag_id, map_index=ti.map_index if mapped else None, task_ids=[ti.task_id], run_ids=[ti.run_id]
    )
    of_run: dict[str, str] = states.get(ti.run_id, {})
    return of_run.get(f"{ti.task_id}_{ti.map_index}" if mapped else ti.task_id)


def _ask_supervisor(message: Any) -> Any:
    from airflow.sdk.execution_time.task_runner import SUPERVISOR_COMMS

    return SUPERVISOR_COMMS.send(message)


def why_a_worker_must_end(task: Any) -> str | None:
    """
    Return what a task would lose if it ended in the triggerer, None if nothing.

    Seen on Airflow 3.3: a task that ends there runs no success callback, listener or ``post_execute``, records no
    asset event, pushes no XCom for each key of its result (``multiple_outputs``), does not tell a downstream
    ``expand()`` how long its result is, and serializes on the event loop.
    """
    from airflow.sdk.bases.xcom import BaseXCom
    from airflow.sdk.execution_time.xcom import XCom

    if not hasattr(BaseXCom, "aset"):
        return "this Airflow cannot write an XCom from the triggerer (3.3 and later can)"
    # The listener manager has moved between versions; where XCom.aset exists, it is here.
    from airflow.sdk.listener import get_listener_manager

    hook = get_listener_manager().hook
    losses = {
        "do_xcom_push is off": not task.do_xcom_push,
        "it has an on_success_callback": bool(task.on_success_callback),
        "it has outlets": bool(task.outlets),
        "it has a post_execute": bool(task._post_execute_hook)  # noqa: SLF001 - an argument of every operator, kept only there
        or type(task).post_execute is not BaseOperator.post_execute,
        "a listener waits for its success": bool(hook.on_task_instance_success.get_hookimpls()),
        "multiple_outputs is set": task.multiple_outputs,
        "a downstream task is expanded over its result": next(task.iter_mapped_dependants(), None) is not None,
        "a custom XCom backend is in use": XCom is not BaseXCom,
    }
    return next((loss for loss, would_be in losses.items() if would_be), None)


def stats() -> Any:
    """Return Airflow's metrics."""
    try:
        from airflow.sdk.observability.stats import Stats
    except ImportError:  # Airflow 3.1
        from airflow.stats import Stats
    return Stats
