"""The emulator calls back: to this machine only, again if need be, and as badly as the faults have it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import requests

from airflow_provider_pika.emulator.callbacks import without_secrets
from airflow_provider_pika.emulator.client import EmulatorClient
from airflow_provider_pika.emulator.server import Server
from airflow_provider_pika.emulator.settings import Pace, Settings


class Receiver:
    """Takes callbacks, and answers what it was told to, else 204."""

    def __init__(self) -> None:
        self.taken: list[dict[str, Any]] = []
        self.answers: list[int] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.taken.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(receiver.answers.pop(0) if receiver.answers else 204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook?token=of-this-submit"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def jobids(self) -> list[str]:
        return [body["jobid"] for body in self.taken]

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def submit(emulator: EmulatorClient, reply_url: str, **more: Any) -> str:
    fields = {"message": "HELLO", "prompt": "waves", "replyUrl": reply_url, "replyRef": "mine"}
    answer = requests.post(
        f"{emulator.url}/v1/pika/encrypt_text",
        files={name: (None, text) for name, text in fields.items()},
        headers={"Authorization": f"Bearer {emulator.token}"},
        timeout=10,
        **more,
    )
    return str(answer.json()["jobid"])


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not what():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.01)


def deliveries(emulator: EmulatorClient, count: int) -> list[dict[str, Any]]:
    """Wait until so many tries have come to something; return them."""
    wait_for(lambda: len(emulator.callbacks()) >= count)
    return emulator.callbacks()


def outcomes(emulator: EmulatorClient) -> dict[str, int]:
    return {outcome: count for outcome, count in emulator.counters()["callbacks"].items() if count}


def test_an_ended_job_is_posted_to_its_reply_url(pika_emulator: EmulatorClient, receiver: Receiver) -> None:
    jobid = submit(pika_emulator, receiver.url)
    (delivery,) = deliveries(pika_emulator, 1)
    (body,) = receiver.taken
    assert (body["jobid"], body["status"], body["replyRef"], body["replyUrl"]) == (
        jobid,
        "completed",
        "mine",
        receiver.url,
    )
    assert requests.get(body["attachments"][0]["url"], timeout=10).status_code == 200
    assert (delivery["jobid"], delivery["outcome"], delivery["status"], delivery["attempt"]) == (
        jobid,
        "delivered",
        204,
        1,
    )
    assert outcomes(pika_emulator) == {"delivered": 1}


def test_the_way_from_a_jobs_end_to_its_callback_and_its_read_can_be_timed(
    pika_emulator: EmulatorClient, receiver: Receiver
) -> None:
    jobid = submit(pika_emulator, receiver.url)
    (delivery,) = deliveries(pika_emulator, 1)
    (job,) = pika_emulator.jobs()
    assert job["seen"] is None
    headers = {"Authorization": f"Bearer {pika_emulator.token}"}
    for _ in range(2):
        requests.get(f"{pika_emulator.url}/v1/pika/jobs/", {"jobid": jobid}, headers=headers, timeout=10)
        seen = pika_emulator.jobs()[0]["seen"]
        assert job["ended"] == delivery["ended"] <= delivery["sent"] <= delivery["answered"] <= seen
        job["seen"] = job["seen"] or seen
    assert job["seen"] == seen


@pytest.mark.parametrize("url", ["https://example.org/hook", "file://localhost/etc/hosts", "nonsense", "http://["])
def test_nothing_leaves_this_machine(pika_emulator: EmulatorClient, url: str) -> None:
    submit(pika_emulator, url)
    (delivery,) = deliveries(pika_emulator, 1)
    assert (delivery["outcome"], delivery["sent"]) == ("not_delivered", None)


@pytest.mark.parametrize("status", [500, 503, None])
def test_a_receiver_that_is_down_is_tried_again_until_it_is_back(
    pika_emulator: EmulatorClient, receiver: Receiver, status: int | None
) -> None:
    if status is None:
        submit(pika_emulator, "http://127.0.0.1:9/hook")
    else:
        receiver.answers = [status] * 2
        submit(pika_emulator, receiver.url)
    for tries in (1, 2):
        assert deliveries(pika_emulator, tries)[-1]["outcome"] == "retried"
        pika_emulator.advance(10)
    last = deliveries(pika_emulator, 3)[-1]
    assert (last["attempt"], last["outcome"]) == (3, "retried" if status is None else "delivered")


def test_a_receiver_that_stays_away_is_given_up(pika_emulator: EmulatorClient) -> None:
    submit(pika_emulator, "http://127.0.0.1:9/hook")
    for tries in range(1, 5):
        deliveries(pika_emulator, tries)
        pika_emulator.advance(10)
    assert outcomes(pika_emulator) == {"retried": 3, "failed": 1}


@pytest.mark.parametrize("status", [302, 404, 413])
def test_a_receiver_that_refuses_is_not_asked_again(
    pika_emulator: EmulatorClient, receiver: Receiver, status: int
) -> None:
    receiver.answers = [status]
    submit(pika_emulator, receiver.url)
    assert [(one["status"], one["outcome"]) for one in deliveries(pika_emulator, 1)] == [(status, "failed")]


class TestFaults:
    def test_all_are_lost(self, pika_emulator: EmulatorClient, receiver: Receiver) -> None:
        pika_emulator.fault("callback", "lost", times=3)
        for _ in range(3):
            submit(pika_emulator, receiver.url)
        last = submit(pika_emulator, receiver.url)
        deliveries(pika_emulator, 4)
        assert outcomes(pika_emulator) == {"lost": 3, "delivered": 1}
        assert receiver.jobids == [last]

    def test_half_are_lost(self, pika_emulator: EmulatorClient, receiver: Receiver) -> None:
        pika_emulator.fault("callback", "lost", times=100, share=0.5)
        jobids = [submit(pika_emulator, receiver.url) for _ in range(6)]
        assert {one["jobid"] for one in deliveries(pika_emulator, 6)} == set(jobids)
        assert outcomes(pika_emulator) == {"lost": 3, "delivered": 3}

    def test_one_comes_twice(self, pika_emulator: EmulatorClient, receiver: Receiver) -> None:
        pika_emulator.fault("callback", "doubled")
        jobid = submit(pika_emulator, receiver.url)
        deliveries(pika_emulator, 2)
        assert receiver.jobids == [jobid, jobid]

    def test_one_comes_late_and_is_overtaken(self, pika_emulator: EmulatorClient, receiver: Receiver) -> None:
        pika_emulator.fault("callback", "late", seconds=60)
        late, plain = (submit(pika_emulator, receiver.url) for _ in range(2))
        deliveries(pika_emulator, 1)
        assert receiver.jobids == [plain]
        pika_emulator.advance(60)
        (_, second) = deliveries(pika_emulator, 2)
        assert receiver.jobids == [plain, late]
        assert second["ended"] < second["sent"]

    def test_a_late_one_counts_from_its_jobs_end_not_from_when_it_was_noticed(
        self, pika_emulator: EmulatorClient, receiver: Receiver
    ) -> None:
        pika_emulator.configure(seconds=100)
        pika_emulator.fault("callback", "late", seconds=50)
        jobid = submit(pika_emulator, receiver.url)
        pika_emulator.advance(1000)
        wait_for(lambda: receiver.jobids == [jobid])

    def test_many_come_in_no_order(self, pika_emulator: EmulatorClient, receiver: Receiver) -> None:
        pika_emulator.configure(max_jobs=10)
        pika_emulator.fault("callback", "shuffled", times=10, seconds=1000)
        jobids = [submit(pika_emulator, receiver.url) for _ in range(10)]
        for _ in range(40):
            pika_emulator.advance(25)
            time.sleep(0.02)
        wait_for(lambda: len(receiver.jobids) == 10)
        assert receiver.jobids != jobids
        assert sorted(receiver.jobids) == sorted(jobids)

    def test_one_comes_before_the_answer_to_its_submit(self, pika_emulator: EmulatorClient, receiver: Receiver) -> None:
        pika_emulator.fault("submit", "slow", seconds=0.6)
        answered: list[str] = []
        asking = threading.Thread(target=lambda: answered.append(submit(pika_emulator, receiver.url)))
        asking.start()
        deliveries(pika_emulator, 1)
        assert (len(receiver.taken), answered) == (1, [])
        asking.join(10)
        assert receiver.jobids == answered

    @pytest.mark.parametrize("kind", ["drop_after", "slow_take", "cut"])
    def test_a_submit_that_nobody_heard_answered_calls_back_all_the_same(
        self, pika_emulator: EmulatorClient, receiver: Receiver, kind: str
    ) -> None:
        pika_emulator.fault("submit", kind, **({"seconds": 0.3} if kind == "slow_take" else {}))
        with pytest.raises((requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)):
            requests.post(
                f"{pika_emulator.url}/v1/pika/encrypt_text",
                files={"message": (None, "A"), "prompt": (None, "B"), "replyUrl": (None, receiver.url)},
                headers={"Authorization": f"Bearer {pika_emulator.token}"},
                timeout=0.1 if kind == "slow_take" else 10,
            )
        deliveries(pika_emulator, 1)
        assert receiver.jobids == [job["jobid"] for job in pika_emulator.jobs()]

    def test_a_reset_takes_back_what_has_not_been_sent(self, pika_emulator: EmulatorClient, receiver: Receiver) -> None:
        pika_emulator.fault("callback", "late", seconds=0.2)
        submit(pika_emulator, receiver.url)
        wait_for(lambda: pika_emulator.jobs()[0]["ended"] is not None)
        pika_emulator.reset()
        submit(pika_emulator, receiver.url)
        deliveries(pika_emulator, 1)
        time.sleep(0.4)
        assert len(receiver.taken) == 1


def test_the_token_of_a_reply_url_is_not_printed(receiver: Receiver) -> None:
    said: list[str] = []
    server = Server(Settings(pace=Pace(0)), say=said.append)
    thread = threading.Thread(target=server.run)
    thread.start()
    client = EmulatorClient(server.url)
    try:
        submit(client, receiver.url)
        deliveries(client, 1)
        told = json.dumps([client.callbacks(), client.requests(), *said])
    finally:
        server.stop()
        thread.join(10)
    assert "of-this-submit" in receiver.taken[0]["replyUrl"]
    assert any("callback delivered" in line and "/hook?token=***" in line for line in said)
    assert "of-this-submit" not in told


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://127.0.0.1:8080/pika/callback/1?token=abc", "http://127.0.0.1:8080/pika/callback/1?token=***"),
        ("http://a/b?c=d&token=e=f#g", "http://a/b?c=***&token=***#g"),
        ("https://me:secret@a/b@c", "https://***@a/b@c"),
        ("nonsense", "nonsense"),
    ],
)
def test_a_url_is_shown_without_what_opens_it(url: str, shown: str) -> None:
    assert without_secrets(url) == shown
