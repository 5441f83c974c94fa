"""Mailbox and bell in a real database of Airflow's."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk import DAG, get_current_context, task
from sqlalchemy.exc import OperationalError

from airflow_provider_pika.api.callback import (
    BELL_PREFIX,
    Call,
    job_digest,
    mailbox_key,
    new_mailbox,
    new_token,
    read_bell,
    read_call,
)
from airflow_provider_pika.callbacks.mailbox import StoreAwayError, deliver

try:
    from airflow.state import TaskScope, get_state_backend
except ImportError:
    pytestmark = pytest.mark.skip(reason="a task state store came with Airflow 3.3")


class Mailbox:
    """An open mailbox of a task instance."""

    def __init__(self, ti_id: uuid.UUID, scope: Any) -> None:
        self.ti_id = ti_id
        self.scope = scope
        self.key = mailbox_key(new_token())

    def write(self, value: Any, expires_at: Any = None) -> None:
        get_state_backend().set(self.scope, self.key, json.dumps(value), expires_at=expires_at)

    def read(self) -> Any:
        text = get_state_backend().get(self.scope, self.key)
        return None if text is None else json.loads(text)

    def call(self, jobid: str, **more: Any) -> bool:
        return deliver(self.ti_id, self.key, call_of(jobid, **more))


def call_of(jobid: str, **more: Any) -> Call:
    """Return what is kept of a call's body."""
    call = read_call(json.dumps({"jobid": jobid, **more}).encode())
    assert call is not None
    return call


_RUNS: list[tuple[uuid.UUID, Any]] = []


@pytest.fixture
def mailbox(run_dag: Callable[..., Any]) -> Mailbox:
    """Return a mailbox of its own, empty and open, of a mapped task instance that has ended."""
    if not _RUNS:
        with DAG("callback_mailbox", schedule=None) as dag:

            @task
            def submit(number: int) -> None:
                get_current_context()["task_state_store"].set("number", number)

            submit.expand(number=[1, 2])
        run = run_dag(dag)
        ti = next(ti for ti in run.get_task_instances() if ti.map_index == 1)
        region = {"region_id": ti.region_id} if hasattr(ti, "region_id") else {}  # Airflow 3.4
        scope = TaskScope("callback_mailbox", run.run_id, "submit", 1, **region)
        assert get_state_backend().get(scope, "number") == "2", "where the task itself has written"
        _RUNS.append((uuid.UUID(str(ti.id)), scope))
    mailbox = Mailbox(*_RUNS[0])
    mailbox.write({"jobids": []})
    return mailbox


def bells(jobid: str | None = None) -> list[str]:
    """Return the keys of all bells, or of those for one job."""
    from airflow.models.variable import Variable
    from airflow.utils.session import create_session

    with create_session() as session:
        keys = [key for (key,) in session.query(Variable.key) if key.startswith(BELL_PREFIX)]
    return [key for key in keys if jobid is None or read_bell(key).job == job_digest(jobid)]  # type: ignore[union-attr]


def test_a_call_is_kept_and_rings(mailbox: Mailbox) -> None:
    assert mailbox.call("kept:1")
    assert mailbox.read()["jobids"] == ["kept:1"]
    (key,) = bells("kept:1")
    ring = read_bell(key)
    assert ring is not None
    assert abs(ring.at - time.time()) < 60


def test_the_same_call_a_hundred_times_has_one_effect(mailbox: Mailbox) -> None:
    for _ in range(100):
        assert mailbox.call("again:1")
    assert mailbox.read()["jobids"] == ["again:1"]
    assert len(bells("again:1")) == 1


def test_forged_calls_leave_the_true_one_its_place_and_its_bell(mailbox: Mailbox) -> None:
    mailbox.write(new_mailbox("mine"))
    for number in range(40):
        assert mailbox.call(f"forged:{number}")
        if number == 20:
            assert mailbox.call("true:1", replyRef="mine", content="at once")
    assert mailbox.call("true:1", replyRef="mine", status="completed")
    held = mailbox.read()
    assert held["own"]["jobids"] == ["true:1"]
    assert len(held["jobids"]) == 8
    assert len(bells("true:1")) == 2


def test_calls_at_the_same_instant_are_all_kept(mailbox: Mailbox) -> None:
    """The threads here stand for several api-servers: they share nothing but the database."""
    for turn in range(5):
        mailbox.write({"jobids": []})
        jobids = [f"together:{turn}:{number}" for number in range(8)]
        start = threading.Barrier(len(jobids))

        def go(jobid: str, start: threading.Barrier = start) -> bool:
            start.wait()
            return mailbox.call(jobid)

        with ThreadPoolExecutor(len(jobids)) as pool:
            assert all(pool.map(go, jobids))
        assert sorted(mailbox.read()["jobids"]) == jobids
        assert all(len(bells(jobid)) == 1 for jobid in jobids)


def test_nothing_is_written_for_a_mailbox_that_is_not_there(mailbox: Mailbox) -> None:
    before = len(bells())
    foreign = call_of("foreign:1")
    assert not deliver(mailbox.ti_id, mailbox_key(new_token()), foreign)
    assert not deliver(uuid.uuid4(), mailbox.key, foreign)
    get_state_backend().delete(mailbox.scope, mailbox.key)
    assert not mailbox.call("foreign:1")
    assert mailbox.read() is None
    assert len(bells()) == before


def test_a_mailbox_expires_when_its_worker_said(mailbox: Mailbox) -> None:
    from airflow._shared.timezones import timezone
    from airflow.models.task_state_store import TaskStateStoreModel
    from airflow.utils.session import create_session

    at = timezone.utcnow() + timedelta(days=3)
    mailbox.write({"jobids": []}, expires_at=at)
    assert mailbox.call("expires:1")
    with create_session() as session:
        (row,) = session.query(TaskStateStoreModel).filter_by(key=mailbox.key)
        assert row.expires_at == at


def test_a_mailbox_that_workers_keep_elsewhere_is_open(mailbox: Mailbox) -> None:
    """A state store backend of the workers' own leaves a reference in the row, never the mailbox itself."""
    mailbox.write({"__airflow_state_ref__": "s3://state/1"})
    assert mailbox.call("elsewhere:1")
    assert mailbox.read()["jobids"] == ["elsewhere:1"]


def test_bells_that_rang_long_ago_are_removed_and_nothing_else(mailbox: Mailbox) -> None:
    from airflow.models.variable import Variable
    from airflow.utils.session import create_session

    def key(ago: float) -> str:
        return f"{BELL_PREFIX}{(time.time() - ago) * 1000:.0f}:{'0' * 8}:{'0' * 24}"

    old, older, fresh, others = key(301), key(9000), key(200), ["pika_ended", "pikaxended:1:2:3", "another"]
    with create_session() as session:
        session.add_all([Variable(key=name, val="1") for name in (old, older, fresh, *others)])
    try:
        assert mailbox.call("prunes:1")
        with create_session() as session:
            left = {name for (name,) in session.query(Variable.key)}
        assert not left & {old, older}
        assert left >= {fresh, *others}
    finally:
        with create_session() as session:
            session.query(Variable).filter(Variable.key.in_([fresh, *others])).delete()


@contextmanager
def locked_database() -> Iterator[None]:
    """Hold the lock of the database, and let nobody wait long for it."""
    import sqlite3

    from airflow import settings

    path = settings.engine.url.database
    settings.engine.dispose()
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        holder.rollback()
        holder.close()


def test_a_locked_database_is_told_from_an_unknown_mailbox(mailbox: Mailbox) -> None:
    import sqlite3

    from airflow import settings
    from sqlalchemy import event

    def hurry(connection: Any, _: Any) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA busy_timeout=50")

    event.listen(settings.engine, "connect", hurry)
    try:
        with locked_database(), pytest.raises(StoreAwayError, match="database is locked") as failed:
            mailbox.call("locked:1")
    finally:
        event.remove(settings.engine, "connect", hurry)
        settings.engine.dispose()
    assert mailbox.key not in str(failed.value)
    assert mailbox.read() == {"jobids": []}
    assert mailbox.call("locked:1")
    assert mailbox.read()["jobids"] == ["locked:1"]


def test_what_the_database_says_names_no_parameters(mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any) -> None:
        raise OperationalError("INSERT …", {"key": "a parameter"}, Exception("server closed the connection"))

    monkeypatch.setattr("airflow_provider_pika.callbacks.mailbox._ring", gone)
    with pytest.raises(StoreAwayError) as failed:
        mailbox.call("halfway:1")
    assert str(failed.value) == "OperationalError: server closed the connection"
    assert failed.value.__suppress_context__
    assert mailbox.read() == {"jobids": []}, "mailbox and bell are written together or not at all"
