"""The receiver's side of mailbox and bell: Airflow's own database, asked from within the api-server."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import delete, select, update
from sqlalchemy.exc import SQLAlchemyError

from airflow_provider_pika.api.callback import BELL_AGE, BELL_PREFIX, Call, bell_key, with_call

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

_DESCRIPTION = "A Pika job has ended. Heard by the triggerers within seconds; the next such call removes old ones."
# Old bells that one call removes at most: more than it rings, and few enough to be no burden.
_PRUNED = 100


class StoreAwayError(Exception):
    """The database is locked or away; nothing was kept, or it is not known whether."""


def deliver(ti_id: UUID, key: str, call: Call) -> bool:
    """
    Put a call into the open mailbox it is for, and ring the bell; both or neither, durable once this returns.

    :param ti_id: the task instance the call's URL names, of whichever try
    :param key: the mailbox the URL's token opens
    :return: whether there is such a mailbox; if not, nothing was written
    :raises StoreAwayError: when the database could not be asked; the call may be repeated
    """
    try:
        # Airflow 3.3 has brought the store. Below there is no mailbox, and nothing to import.
        from airflow.state import get_state_backend
    except ImportError:
        return False
    from airflow.utils.session import create_session

    try:
        with create_session(scoped=False) as session:
            scope = _scope(session, ti_id)
            if scope is None:
                return False
            expires_at = _lock(session, scope, key)
            backend = get_state_backend()
            text = backend.get(scope, key, session=session)
            if text is None:
                return False
            after = with_call(_content(text), call)
            if after is not None:
                mailbox, rings = after
                backend.set(scope, key, json.dumps(mailbox), expires_at=expires_at, session=session)
                if rings:
                    _ring(session, call.jobid)
            return True
    except SQLAlchemyError as error:
        # Not its whole text, which has the statement's parameters, nor its chain.
        raise StoreAwayError(f"{type(error).__name__}: {getattr(error, 'orig', None)}") from None


def _scope(session: Session, ti_id: UUID) -> Any:
    """Return where a task instance keeps its state, also one whose try is over; None if there is none."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.state import TaskScope

    ti: Any = session.get(TaskInstance, ti_id)
    if ti is None:
        # Each retry and each clear gives a task instance a new id; up to 3.3 the old one is kept in the history.
        try:
            from airflow.models.taskinstancehistory import TaskInstanceHistory
        except ImportError:  # Airflow 3.4: an old try stays among the task instances
            return None
        ti = session.get(TaskInstanceHistory, ti_id)
    if ti is None:
        return None
    region = {"region_id": ti.region_id} if hasattr(ti, "region_id") else {}  # Airflow 3.4
    return TaskScope(dag_id=ti.dag_id, run_id=ti.run_id, task_id=ti.task_id, map_index=ti.map_index, **region)


def _lock(session: Session, scope: Any, key: str) -> Any:
    """
    Let nobody else change this mailbox until the transaction ends; return when it expires.

    Two calls for one mailbox may come at the same instant, to two api-servers: each would read the list without the
    other's jobid and write it so, and a paid job's id would be lost. ``SELECT … FOR UPDATE`` means nothing to SQLite,
    and a transaction there takes the lock with its first write. So the first thing done is a write that changes
    nothing: it locks the row in PostgreSQL and MySQL and the file in SQLite, and what is read after it (READ COMMITTED,
    which Airflow sets for MySQL too) has what the other one wrote.
    """
    from airflow.models.task_state_store import TaskStateStoreModel as Row

    # The key is the hash of a random token, no second one is alike: the map index need not be asked for.
    same = (Row.dag_id == scope.dag_id, Row.run_id == scope.run_id, Row.task_id == scope.task_id, Row.key == key)
    session.execute(update(Row).where(*same).values(value=Row.value), execution_options={"synchronize_session": False})
    # What the worker chose stays; writing without it would keep the row for ever.
    return session.scalar(select(Row.expires_at).where(*same))


def _content(text: str) -> dict[str, Any]:
    """
    Return what a mailbox holds.

    With a state store backend of the workers' own, the row has but a reference to the worker's empty mailbox: it is
    open and empty to us as well, and what we write over it is read by the worker as it is.
    """
    content = json.loads(text)
    return content if isinstance(content, dict) and isinstance(content.get("jobids"), list) else {"jobids": []}


def _ring(session: Session, jobid: str) -> None:
    """Ring the bell, and remove those that rang long ago."""
    from airflow.models.variable import Variable

    now = time.time()
    # The row itself: Variable.set would ask every secrets backend first.
    session.add(Variable(key=bell_key(now, jobid), val="", description=_DESCRIPTION))
    session.flush()
    # All these keys are of one length, so their order is that of their times in any collation. Whoever else removes
    # the same rows at this moment is not waited for: two that wait for each other would be a deadlock.
    old = (
        select(Variable.id)
        .where(
            Variable.key.startswith(BELL_PREFIX, autoescape=True),
            Variable.key < f"{BELL_PREFIX}{(now - BELL_AGE) * 1000:.0f}",
        )
        .limit(_PRUNED)
        .with_for_update(skip_locked=True)
    )
    ids = list(session.scalars(old))
    if ids:
        session.execute(delete(Variable).where(Variable.id.in_(ids)), execution_options={"synchronize_session": False})
