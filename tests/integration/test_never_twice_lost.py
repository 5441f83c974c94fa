"""A lost answer, in the process that lost it: the job is found and adopted, or it is proved that there is none."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_pika.compat import AirflowFailException
from airflow_provider_pika.emulator.client import EmulatorClient
from airflow_provider_pika.exceptions import PikaUnavailableError, PikaUnknownOutcomeError
from airflow_provider_pika.hooks.pika import PikaHook
from tests.support.hook_tools import connect, http, recorder
from tests.support.submits import STORES, Lives, asked, jobids, submit
from tests.support.task_context import Clock

pytestmark = pytest.mark.usefixtures("long_jobs")


LOST: list[tuple[str, dict[str, Any]]] = [
    ("drop_after", {}),
    ("cut", {}),
    ("server_error", {"status": 500, "work": True}),
    ("server_error", {"status": 502, "work": True}),
    ("server_error", {"status": 504}),
    ("no_jobid", {}),
    ("html", {"status": 200, "work": True}),
    ("html", {"status": 502, "work": True}),
    ("empty", {"status": 200}),
    ("list_instead", {}),
]


@STORES
@pytest.mark.parametrize(("kind", "params"), LOST, ids=[f"{kind}-{p.get('status', '')}" for kind, p in LOST])
def test_a_job_whose_answer_was_lost_is_found_by_its_reference_and_adopted(
    pika_emulator: EmulatorClient, life: Lives, kind: str, params: dict[str, Any], stored: bool
) -> None:
    life(submit(), task_id="a_neighbour").run()
    (neighbour,) = jobids(pika_emulator)
    pika_emulator.fault("submit", kind, **params)

    ending = life(submit(), stored=stored).run()

    assert ending.state == "success"
    assert jobids(pika_emulator) == [neighbour, ending.value]
    assert ending.xcoms == {"jobid": ending.value, "return_value": ending.value}


@STORES
@pytest.mark.parametrize("late", [15, 25, 45, 59])
def test_a_job_listed_late_is_found_within_the_minute_the_service_may_take(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock, late: float, stored: bool
) -> None:
    """Seen with jobs listed after 25 s: the last poll came at 20 s, and a second job was paid for."""
    pika_emulator.fault("submit", "drop_after")
    pika_emulator.fault("submit", "late_listing", seconds=late)

    ending = life(submit(), stored=stored).run()

    assert [ending.value] == jobids(pika_emulator)
    assert sum(clock.sleeps) <= 70
    assert all(pause >= 10 for pause in clock.sleeps if pause)


@STORES
@pytest.mark.parametrize("kind", ["drop_before", "server_error", "html"])
def test_a_submit_that_provably_made_no_job_is_sent_once_more(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock, kind: str, stored: bool
) -> None:
    pika_emulator.fault("submit", kind)
    task = life(submit(), stored=stored)

    assert task.run().state == "success"
    assert len(pika_emulator.jobs()) == 1
    assert asked(pika_emulator) == 2
    assert "Submitting once more" in task.log.text
    assert 60 <= sum(clock.sleeps) <= 75


@STORES
def test_a_second_lost_answer_is_searched_for_without_a_worker_and_ends_unknown(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock, stored: bool
) -> None:
    pika_emulator.fault("submit", "drop_before", times=5)

    ending = life(submit(), stored=stored).run()

    assert type(ending.error) is AirflowFailException
    assert type(ending.cause) is PikaUnknownOutcomeError
    assert asked(pika_emulator) == 2
    assert sum(clock.reschedules) >= 100
    assert sum(clock.sleeps) <= 75


@STORES
def test_a_second_lost_answer_whose_job_is_listed_late_is_found_from_a_later_leg(
    pika_emulator: EmulatorClient, life: Lives, stored: bool
) -> None:
    pika_emulator.fault("submit", "drop_before")
    pika_emulator.fault("submit", "drop_after")
    pika_emulator.fault("submit", "late_listing", seconds=50)

    ending = life(submit(), stored=stored).run()

    assert [ending.value] == jobids(pika_emulator)
    assert asked(pika_emulator) == 2


@STORES
def test_a_504_that_is_not_found_stays_unknown_and_is_not_retried(
    pika_emulator: EmulatorClient, life: Lives, stored: bool
) -> None:
    pika_emulator.fault("submit", "unlisted")
    pika_emulator.fault("submit", "server_error", status=504)

    ending = life(submit(), stored=stored).run()

    assert type(ending.error) is AirflowFailException
    assert type(ending.cause) is PikaUnknownOutcomeError
    assert "HTTP 504" in str(ending.error)
    assert "clearing the task means" in str(ending.error)
    assert asked(pika_emulator) == len(pika_emulator.jobs()) == 1


@STORES
@pytest.mark.parametrize("on", ["list", "job"])
def test_while_no_poll_goes_through_nothing_is_decided(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock, on: str, stored: bool
) -> None:
    """Seen with a list that answered 503 for half a minute: a final error, where a poll 15 s later found the job."""
    life(submit(), task_id="a_neighbour").run()
    pika_emulator.fault("submit", "drop_after")
    pika_emulator.fault(on, "server_error", status=503, times=6)

    ending = life(submit(), stored=stored).run()

    assert [ending.value] == jobids(pika_emulator)[1:]
    assert asked(pika_emulator) == 2  # the neighbour's and this one
    assert sum(clock.sleeps) <= 30, "a worker was held for nothing"


@STORES
def test_polls_that_keep_failing_end_the_try_with_an_error_that_may_be_retried(
    pika_emulator: EmulatorClient, life: Lives, stored: bool
) -> None:
    pika_emulator.fault("submit", "drop_after")
    pika_emulator.fault("list", "server_error", status=503, times=14)
    task = life(submit(), stored=stored)

    ending = task.run()

    assert ending.state == "up_for_retry"
    assert type(ending.error) is PikaUnavailableError
    assert "HTTP 503" in str(ending.error)
    assert [task.retry().value] == jobids(pika_emulator)
    assert asked(pika_emulator) == 1


@STORES
def test_when_the_answer_took_a_minute_to_be_lost_nothing_is_submitted_again(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock, monkeypatch: pytest.MonkeyPatch, stored: bool
) -> None:
    """A made job could have run and ended meanwhile."""
    pika_emulator.fault("submit", "drop_before")
    send = PikaHook.send

    def slowly(self: PikaHook, *args: Any, **about: Any) -> Any:
        try:
            return send(self, *args, **about)
        finally:
            clock.leap(59)

    monkeypatch.setattr(PikaHook, "send", slowly)

    assert type(life(submit(), stored=stored).run().cause) is PikaUnknownOutcomeError
    assert asked(pika_emulator) == 1
    assert clock.sleeps == []


@STORES
@pytest.mark.parametrize("frozen", [16, 400])
def test_a_process_that_was_stopped_during_its_search_sends_nothing_more(
    pika_emulator: EmulatorClient,
    life: Lives,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    frozen: float,
    stored: bool,
) -> None:
    """A job could have come and gone while nobody polled."""
    pika_emulator.fault("submit", "drop_before")
    monkeypatch.setattr("airflow_provider_pika.operators.search.time.sleep", lambda _: clock.leap(frozen))

    assert type(life(submit(), stored=stored).run().cause) is PikaUnknownOutcomeError
    assert asked(pika_emulator) == 1


@STORES
def test_resubmit_unknown_submits_again_where_nothing_is_found(
    pika_emulator: EmulatorClient, life: Lives, stored: bool
) -> None:
    pika_emulator.fault("submit", "unlisted")
    pika_emulator.fault("submit", "server_error", status=504)

    ending = life(submit(resubmit_unknown=True), stored=stored).run()

    assert ending.state == "success"
    assert asked(pika_emulator) == len(pika_emulator.jobs()) == 2


@STORES
def test_resubmit_unknown_still_adopts_what_is_found(pika_emulator: EmulatorClient, life: Lives, stored: bool) -> None:
    pika_emulator.fault("submit", "drop_after")

    assert life(submit(resubmit_unknown=True), stored=stored).run().state == "success"
    assert len(pika_emulator.jobs()) == 1


def test_the_search_does_not_read_a_strangers_job_twice(pika_emulator: EmulatorClient, life: Lives) -> None:
    neighbour = life(submit(), task_id="a_neighbour").run().value
    pika_emulator.fault("submit", "drop_before")

    life(submit()).run()

    assert pika_emulator.counters()["polls"]["by_job"][neighbour]["count"] == 1


def test_a_refusal_of_the_second_submit_is_a_refusal(pika_emulator: EmulatorClient, life: Lives) -> None:
    """Lost, not found, submitted once more, and then the queue is full: no intent is left, and no try used."""
    pika_emulator.fault("submit", "drop_before")
    pika_emulator.fault("submit", "queue_full")
    task = life(submit())

    ending = task.run()

    assert (ending.state, ending.legs) == ("success", 2)
    assert len(pika_emulator.jobs()) == 1


PAGE = b"<!DOCTYPE html><html><body><h1>It works!</h1></body></html>"


@STORES
@pytest.mark.parametrize(("submitted", "checked"), [(200, 200), (501, 404)])
def test_a_host_that_is_not_the_api_is_called_wrong_at_once_and_never_sent_a_second_submit(
    pika_emulator: EmulatorClient,
    life: Lives,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    submitted: int,
    checked: int,
    stored: bool,
) -> None:
    """It ended after minutes with "a job may have been made and paid for", where a web server had said 501."""
    task = life(submit(), stored=stored)
    with recorder(lambda asked: http(submitted if asked.startswith(b"POST") else checked, PAGE)) as server:
        connect(monkeypatch, server.url)
        ending = task.run()

    wanted = f"The root URL {server.url} of the connection 'pika_default' looks wrong: "
    assert ending.state == "up_for_retry"
    assert type(ending.error) is PikaUnavailableError
    assert str(ending.error).startswith(wanted)
    assert [head.split(" http")[0] for head in server.heads] == ["post /v1/pika/encrypt_text", "get /v2/account"]
    assert clock.sleeps == []

    connect(monkeypatch, pika_emulator.url, pika_emulator.connection["password"])
    ending = task.retry()

    assert type(ending.cause) is PikaUnknownOutcomeError
    assert asked(pika_emulator) == 0, "a page can stand before an API that has taken the submit"


@STORES
def test_behind_a_page_for_everything_the_job_is_found_by_the_next_try(
    pika_emulator: EmulatorClient, life: Lives, stored: bool
) -> None:
    pika_emulator.fault("submit", "html", status=200, work=True)
    pika_emulator.fault("check", "html", status=200)
    task = life(submit(), stored=stored)

    assert "looks wrong" in str(task.run().error)
    assert [task.retry().value] == jobids(pika_emulator)
    assert asked(pika_emulator) == 1
