"""The emulator's faults that take time, and the ones that tell a client what it must not repeat."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from airflow_provider_pika.emulator.client import EmulatorClient
from dev.harness.processes import wait_until

LIST = "/v1/pika/jobs"
SUBMIT = "/v1/pika/encrypt_text"


class Api:
    def __init__(self, emulator: EmulatorClient) -> None:
        self.emulator = emulator
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers["Authorization"] = f"Bearer {emulator.token}"

    def submit(self, timeout: float = 10, **more: str) -> requests.Response:
        fields = {"message": "HELLO", "prompt": "waves", **more}
        files = {name: (None, value) for name, value in fields.items()}
        return self.session.post(self.emulator.url + SUBMIT, files=files, timeout=timeout)

    def list(self, **how: Any) -> requests.Response:
        return self.session.get(self.emulator.url + LIST, **{"timeout": 10, "allow_redirects": False, **how})


@pytest.fixture
def api(pika_emulator: EmulatorClient) -> Iterator[Api]:
    pika_emulator.configure(seconds=100)
    client = Api(pika_emulator)
    yield client
    client.session.close()


@pytest.mark.parametrize("part", ["body", "all"])
def test_a_drip_arrives_whole_though_no_read_waits_long(api: Api, part: str) -> None:
    """The client's timeout, which is one for each read, never strikes; the answer takes far longer than that."""
    jobid = api.submit().json()["jobid"]
    api.emulator.fault("list", "drip", seconds=0.02, part=part)
    began = time.monotonic()
    answer = api.list(timeout=1)
    assert answer.json() == [jobid]
    assert answer.status_code == 200
    assert time.monotonic() - began > 0.02 * len(answer.content)
    assert api.list().json() == [jobid]


def test_a_drip_ends_with_its_client(api: Api) -> None:
    """With the body only, the headers are there at once; a client that leaves does not trouble the next one."""
    api.submit()
    api.emulator.fault("list", "drip", seconds=5)
    answer = api.list(timeout=1, stream=True)
    assert answer.status_code == 200
    answer.close()
    assert api.list().status_code == 200
    api.emulator.fault("list", "drip", seconds=5, part="all")
    with pytest.raises(requests.ReadTimeout):
        api.list(timeout=0.5)


def test_a_submit_is_taken_late_even_if_its_client_has_gone(api: Api) -> None:
    api.emulator.fault("submit", "slow_take", seconds=1)
    with pytest.raises(requests.ReadTimeout):
        api.submit(timeout=0.3)
    assert api.emulator.jobs() == []
    wait_until(api.emulator.jobs, "the job of a client that has gone", 5)
    assert api.list().json() == [job["jobid"] for job in api.emulator.jobs()]


@pytest.mark.parametrize("kind", ["slow", "drop_after"])
def test_a_job_is_made_though_its_client_hears_nothing(api: Api, kind: str) -> None:
    api.emulator.fault("submit", kind)
    with pytest.raises((requests.ReadTimeout, requests.ConnectionError)):
        api.submit(timeout=0.3)
    assert len(api.emulator.jobs()) == 1


def test_a_full_queue_can_say_when_to_come_back(api: Api) -> None:
    api.emulator.fault("submit", "queue_full", retry_after=120)
    answer = api.submit()
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "120")
    assert answer.json()["executingJobs"]


def test_an_echo_repeats_the_clients_secrets(api: Api) -> None:
    api.emulator.fault("submit", "echo", status=400)
    answer = api.submit(discord="made-up-discord", channel="42")
    assert answer.status_code == 400
    assert "made-up-discord" in answer.json()["error"]
    assert api.emulator.token in answer.json()["error"]
    assert api.emulator.jobs() == []
    api.emulator.fault("list", "echo")
    assert (api.list().status_code, api.emulator.token in api.list().text) == (500, False)


def test_every_job_can_be_listed_late(api: Api) -> None:
    api.emulator.configure(list_delay=25)
    jobs = [api.submit().json()["jobid"] for _ in range(2)]
    assert api.list().json() == []
    api.emulator.advance(seconds=25)
    assert api.list().json() == jobs


def test_a_redirect_can_be_of_any_sort(api: Api) -> None:
    api.emulator.fault("list", "redirect", status=302)
    assert api.list().status_code == 302


@pytest.mark.parametrize(
    ("fault", "wrong"),
    [
        ({"on": "list", "kind": "drip", "part": "head"}, "drip takes a part of body or all"),
        ({"on": "list", "kind": "redirect", "status": 200}, "redirect takes a status of"),
    ],
)
def test_a_fault_with_a_parameter_out_of_place_is_refused(api: Api, fault: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        api.emulator.fault(**fault)
