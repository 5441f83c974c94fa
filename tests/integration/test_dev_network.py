"""The network the system tests cut: it must really hold, swallow and come back, or they prove nothing."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import requests

from airflow_provider_pika.emulator.client import EmulatorClient
from dev.harness.network import Network


@pytest.fixture
def network(pika_emulator: EmulatorClient) -> Iterator[Network]:
    with Network(pika_emulator.url) as running:
        yield running


def test_it_may_be_closed_twice(pika_emulator: EmulatorClient) -> None:
    """An Airflow that fails to start is stopped by itself and by the fleet around it; the failure was masked."""
    network = Network(pika_emulator.url)
    with network:
        network.__exit__(None, None, None)


def check(network: Network, token: str, timeout: float = 15) -> int:
    with requests.Session() as session:
        session.trust_env = False
        answer = session.get(
            f"{network.url}/v2/account", headers={"Authorization": f"Bearer {token}"}, timeout=(timeout, timeout)
        )
        return answer.status_code


def in_thread(ask: Callable[[], int]) -> tuple[threading.Thread, list[object]]:
    said: list[object] = []

    def run() -> None:
        try:
            said.append(ask())
        except requests.RequestException as error:
            said.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, said


def test_a_held_connect_hangs_and_sends_nothing_until_it_is_released(
    network: Network, pika_emulator: EmulatorClient
) -> None:
    """Also several at once, and twice in a row: the backlog is full before the first of them comes."""
    assert check(network, pika_emulator.token) == 200
    for _ in range(2):
        network.hold()
        before = network.accepted
        assert not network.holds(os.getpid())
        asking = [in_thread(lambda: check(network, pika_emulator.token)) for _ in range(4)]
        time.sleep(0.5)
        assert network.accepted == before
        assert not any(said for _, said in asking)
        assert network.holds(os.getpid())
        network.release()
        for thread, said in asking:
            thread.join(12)
            assert said == [200]
        assert network.accepted == before + 4


def test_a_held_connect_times_out_at_the_client(network: Network, pika_emulator: EmulatorClient) -> None:
    network.hold()
    with pytest.raises(requests.ConnectTimeout):
        check(network, pika_emulator.token, timeout=0.5)


def test_away_swallows_the_answer_of_a_request_that_has_left(network: Network, pika_emulator: EmulatorClient) -> None:
    """The work is done, the client hears nothing; a new connection does not come about; then all is well again."""
    pika_emulator.fault("check", "slow", seconds=0.5)
    thread, said = in_thread(lambda: check(network, pika_emulator.token, timeout=2))
    time.sleep(0.25)
    network.leave()
    with pytest.raises(requests.ConnectTimeout):
        check(network, pika_emulator.token, timeout=0.5)
    thread.join(5)
    assert isinstance(said[0], requests.ReadTimeout)
    assert pika_emulator.counters()["checks"] == 1
    network.come_back()
    assert check(network, pika_emulator.token) == 200


def test_connections_go_to_each_server_in_turn_and_past_one_that_is_gone(pika_emulator: EmulatorClient) -> None:
    with ExitStack() as gone, Network(pika_emulator.url) as other:
        one = gone.enter_context(Network(pika_emulator.url))
        with Network(one.url, other.url) as front:
            for _ in range(4):
                assert check(front, pika_emulator.token) == 200
            assert (one.accepted, other.accepted) == (2, 2)
            gone.close()
            for _ in range(2):
                assert check(front, pika_emulator.token) == 200
            assert other.accepted == 4
