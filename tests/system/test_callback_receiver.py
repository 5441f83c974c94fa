"""
The receiver of callbacks in real api-servers: what it takes, and all that it must not.

Two api-servers on one database. Once the tasks that own the mailboxes have run, the scheduler and its like are ended:
nothing but the api-servers is asked from then on, and nobody else minds a locked database.
"""

from __future__ import annotations

import socket
import sqlite3
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from airflow_provider_pika.api.callback import BODY_LIMIT, MAILBOX_LIMIT, RINGS_LIMIT, mailbox_key, new_token
from dev.harness.local_airflow import LocalAirflow
from tests.support.receiver import DAG, Box, Receiver

DAGS = Path(__file__).with_name("dags")
LOCK_TIMEOUT = 10


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    home = tmp_path_factory.mktemp("receiver")
    config = {
        "database.sql_alchemy_conn": f"sqlite:///{home.resolve() / 'airflow.db'}?timeout={LOCK_TIMEOUT}",
        "logging.logging_level": "DEBUG",
    }
    with LocalAirflow(home, dags=DAGS, api_servers=2, config=config) as airflow:
        yield Receiver(airflow)


@pytest.fixture(scope="module")
def ended(started: Receiver) -> tuple[Receiver, str, str]:
    """Let the tasks run and end, and then all but the api-servers; return run and task instance as well."""
    run_id, ti_id = started.start()
    assert started.call_early(run_id, "early:1") == 204
    started.airflow.runs.wait(DAG, run_id, timeout=120)
    for name in ("scheduler", "dag-processor", "triggerer"):
        started.airflow.kill(name)
    return started, run_id, ti_id


@pytest.fixture
def receiver(ended: tuple[Receiver, str, str]) -> Receiver:
    return ended[0]


@pytest.fixture
def box(ended: tuple[Receiver, str, str]) -> Box:
    """Return an open mailbox that nobody has called yet."""
    receiver, _, ti_id = ended
    return Box(receiver, ti_id, receiver.tokens.pop())


@pytest.fixture
def nothing_written(receiver: Receiver) -> Iterator[None]:
    before = receiver.written()
    yield
    assert receiver.written() == before


def test_a_call_before_the_submits_own_answer_reaches_the_running_task(ended: tuple[Receiver, str, str]) -> None:
    receiver, run_id, _ = ended
    assert receiver.airflow.api.xcom(DAG, run_id, "waits") == ["early:1"]
    assert receiver.bells("early:1") == 1


def test_a_call_after_the_task_has_ended_is_kept(box: Box, receiver: Receiver) -> None:
    assert receiver.call(box.url, "late:1") == 204
    assert box.jobids() == ["late:1"]
    assert receiver.bells("late:1") == 1


def test_the_same_call_a_hundred_times_has_one_effect(box: Box, receiver: Receiver) -> None:
    """To both api-servers, several at once."""
    urls = [receiver.url(box.ti_id, box.token, server) for server in receiver.airflow.urls] * 50
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda url: receiver.call(url, "same:1"), urls)) == {204}
    assert box.jobids() == ["same:1"]
    assert receiver.bells("same:1") == 1


def test_calls_to_both_servers_at_the_same_instant_lose_nothing(receiver: Receiver, box: Box) -> None:
    jobids = [f"instant:{number}" for number in range(MAILBOX_LIMIT)]
    urls = [receiver.url(box.ti_id, box.token, server) for server in receiver.airflow.urls] * (MAILBOX_LIMIT // 2)
    with ThreadPoolExecutor(MAILBOX_LIMIT) as pool:
        assert set(pool.map(receiver.call, urls, jobids)) == {204}
    assert sorted(box.jobids()) == jobids
    assert [receiver.bells(jobid) for jobid in jobids] == [1] * MAILBOX_LIMIT


@pytest.mark.parametrize("before", [MAILBOX_LIMIT, 40])
def test_foreign_jobids_do_not_shut_the_true_one_out(box: Box, receiver: Receiver, before: int) -> None:
    """Whoever knows the URL fills the mailbox; the 9th call and the 41st still get in, and what is kept is bounded."""
    for number in range(before):
        assert receiver.call(box.url, f"foreign:{before}:{number}") == 204
    assert receiver.call(box.url, f"true:{before}") == 204
    assert receiver.call(box.url, f"foreign:{before}:after") == 204
    assert f"true:{before}" in box.jobids()
    assert len(box.jobids()) == MAILBOX_LIMIT
    rung = sum(receiver.bells(f"foreign:{before}:{number}") for number in range(before))
    assert rung <= RINGS_LIMIT


def test_an_early_call_does_not_silence_the_one_at_the_end(box: Box, receiver: Receiver) -> None:
    """A body that claims an end too early has the job read; the bell still rings for the true one."""
    assert receiver.call(box.url, body=b'{"jobid": "claimed:1", "status": "completed"}') == 204
    assert receiver.call(box.url, body=b'{"jobid": "claimed:1", "status": "completed", "attachments": []}') == 204
    assert box.jobids() == ["claimed:1"]
    assert receiver.bells("claimed:1") == 2


@pytest.mark.usefixtures("nothing_written")
def test_who_knows_no_url_finds_nothing(box: Box, receiver: Receiver, ended: tuple[Receiver, str, str]) -> None:
    """No token, a forged one, another task's, one with another task's id; a task instance that never was."""
    _, run_id, _ = ended
    front, waits = receiver.airflow.front, receiver.ti_id(run_id, "waits")
    path = f"{front}/pika/callback"
    for url in (
        f"{path}/{box.ti_id}",
        f"{path}/{box.ti_id}?token=",
        f"{path}/{box.ti_id}?token={box.token}&token={box.token}",
        receiver.url(box.ti_id, new_token()),
        receiver.url(box.ti_id, receiver.awaited),
        receiver.url(waits, box.token),
        receiver.url(str(uuid.uuid4()), box.token),
        receiver.url("no-uuid", box.token),
        receiver.url(f"{box.ti_id}/more", box.token),
        receiver.url("", box.token),
        receiver.url(box.ti_id, mailbox_key(box.token)),
    ):
        assert receiver.call(url) == 404, url


@pytest.mark.usefixtures("nothing_written")
def test_only_post_is_taken(box: Box, receiver: Receiver) -> None:
    for method in ("GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"):
        answer = receiver.answer(box.url, method=method)
        assert (answer.status_code, answer.headers["Allow"]) == (405, "POST"), method


@pytest.mark.usefixtures("nothing_written")
def test_what_names_no_job_is_bad(box: Box, receiver: Receiver) -> None:
    for body in (b"", b"no json", b"\xff\xff", b"[]", b"null", b"{}", b'{"jobid": 7}', b'{"jobid": ""}', b"[" * 60_000):
        assert receiver.call(box.url, body=body) == 400, body[:20]


def test_a_body_has_a_limit(box: Box, receiver: Receiver) -> None:
    body = b'{"jobid": "long:1"}'
    assert receiver.call(box.url, body=body.ljust(BODY_LIMIT + 1)) == 413
    # Not through the proxy, which drops an answer that comes while it still sends.
    assert receiver.call(receiver.url(box.ti_id, box.token, receiver.airflow.url), body=body.ljust(20 * 2**20)) == 413
    assert box.jobids() == []
    assert receiver.call(box.url, body=body.ljust(BODY_LIMIT)) == 204


@pytest.mark.usefixtures("nothing_written")
def test_an_endless_body_is_hung_up_on_and_costs_no_memory(box: Box, receiver: Receiver) -> None:
    """Chunked, so that nobody knows how long it is; ten at once, on a URL that is known and on one that is not."""
    server = receiver.airflow.urls[0]
    process = psutil.Process(receiver.airflow.family.pid("api-server"))
    family = [process, *process.children(recursive=True)]
    before = sum(member.memory_info().rss for member in family)
    known = [(receiver.url(box.ti_id, box.token, server), 413)] * 5
    unknown = [(receiver.url("no-uuid", box.token, server), 404)] * 5
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda case: (_endless(case[0]), case), known + unknown))
    for (status, sent), (_, expected) in answers:
        assert status == expected
        # What fits into the buffers of two sockets: nobody reads on.
        assert sent < 16 * 2**20
    assert sum(member.memory_info().rss for member in family) - before < 16 * 2**20


def _endless(url: str) -> tuple[int, int]:
    """Send a body without end until the server hangs up; return its status, and how many bytes it let be sent."""
    address = urlsplit(url)
    head = f"POST {address.path}?{address.query} HTTP/1.1\r\nHost: airflow\r\nTransfer-Encoding: chunked\r\n\r\n"
    sent = 0
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        connection.sendall(head.encode())
        chunk = b"4000\r\n" + b" " * 0x4000 + b"\r\n"
        try:
            while sent < 64 * 2**20:
                connection.sendall(chunk)
                sent += len(chunk)
        except ConnectionError:
            pass
        answer = connection.recv(4096)
    return int(answer.split()[1]), sent


def test_an_old_trys_url_is_good_after_a_clear(box: Box, receiver: Receiver, ended: tuple[Receiver, str, str]) -> None:
    _, run_id, ti_id = ended
    receiver.airflow.api.clear(DAG, run_id, ["opens"])
    cleared = receiver.ti_id(run_id, "opens")
    assert cleared != ti_id
    assert receiver.call(box.url, "cleared:1") == 204
    assert receiver.call(receiver.url(cleared, box.token), "cleared:2") == 204
    assert box.jobids() == ["cleared:1", "cleared:2"]


def test_a_locked_database_is_called_again(box: Box, receiver: Receiver) -> None:
    with _locked(receiver.airflow.db.path):
        answer = receiver.answer(box.url, "locked:1")
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
        # The api-server itself is as quick as ever, and what needs no database is answered.
        assert receiver.airflow.api.request("GET", "/version")
        assert receiver.call(box.url, method="GET") == 405
    assert box.jobids() == []
    assert receiver.call(box.url, "locked:1") == 204
    assert box.jobids() == ["locked:1"]
    assert receiver.bells("locked:1") == 1


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        yield
        holder.rollback()


def test_a_database_without_its_tables_is_called_again(box: Box, receiver: Receiver) -> None:
    """As in the middle of an upgrade."""
    with closing(sqlite3.connect(receiver.airflow.db.path, isolation_level=None, timeout=30)) as database:
        database.execute("ALTER TABLE task_state_store RENAME TO away")
        try:
            assert receiver.call(box.url, "away:1") == 503
        finally:
            database.execute("ALTER TABLE away RENAME TO task_state_store")
    assert receiver.call(box.url, "away:1") == 204
    assert box.jobids() == ["away:1"]


def test_a_deleted_run_has_no_mailbox(box: Box, receiver: Receiver, ended: tuple[Receiver, str, str]) -> None:
    _, run_id, _ = ended
    receiver.airflow.api.request("DELETE", f"/dags/{DAG}/dagRuns/{run_id}")
    before = receiver.written()
    assert receiver.call(box.url, "deleted:1") == 404
    assert receiver.call(receiver.url(box.ti_id, receiver.awaited), "deleted:1") == 404
    assert receiver.written() == before


def test_no_token_is_in_any_log_nor_in_the_database(receiver: Receiver) -> None:
    """After all of the above, failures included, with everything logged that Airflow can log."""
    logs = [path for path in receiver.airflow.home.rglob("*") if path.is_file() and ".log" in path.name]
    texts = {path.name: path.read_text(errors="replace") for path in logs}
    assert "/pika/callback/" in texts["api-server.log"], "the calls themselves are logged"
    assert "could not be kept" in "".join(texts.values())
    assert "Traceback" not in texts["api-server.log"] + texts["api-server-2.log"]
    for token in receiver.used:
        assert [name for name, text in texts.items() if token in text] == []
    everything = "\n".join(text for _, text in receiver.airflow.db.dump())
    assert [token for token in receiver.used if token in everything] == []
