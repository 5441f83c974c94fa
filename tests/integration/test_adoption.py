"""
Never pay twice: what a submit leaves behind, and how a later attempt goes on from it.

The emulator's count of jobs is the judge. A "crash" is a store that fails, or an attempt whose process ends between
two steps; jobs run for ten minutes unless a test says otherwise, so that the list shows them.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_pika.compat import AirflowFailException, AirflowSensorTimeout
from airflow_provider_pika.emulator.client import EmulatorClient
from airflow_provider_pika.exceptions import (
    PikaJobFailedError,
    PikaNotFoundError,
    PikaUnavailableError,
    PikaUnknownOutcomeError,
)
from airflow_provider_pika.hooks.pika import PikaHook
from airflow_provider_pika.operators.pika import EncryptTextOperator
from airflow_provider_pika.operators.submission import SUBMIT_KEY, Submission
from tests.support.task_context import Clock, Life, airflow_says

Lives = Callable[..., Life]
# So often a try looks for an earlier one's job before it gives up.
LOOKS = 3
STORES = pytest.mark.parametrize("stored", [True, False], ids=["store", "storeless"])


@pytest.fixture(autouse=True)
def _long_jobs(pika_emulator: EmulatorClient) -> None:
    pika_emulator.configure(seconds=600)


def submit(**about: Any) -> Callable[[], EncryptTextOperator]:
    return lambda: EncryptTextOperator(**{"task_id": "submit", "message": "HELLO", "prompt": "waves", **about})


def asked(emulator: EmulatorClient) -> int:
    return emulator.counters()["submits"]["asked"]


def jobids(emulator: EmulatorClient) -> list[str]:
    return [job["jobid"] for job in emulator.jobs()]


class Killed(BaseException):
    """The end of the process."""


def kill(*_: Any, **__: Any) -> None:
    raise Killed


def crash_before_answer(task: Life, *, made: bool = True) -> None:
    """End the process while the submit is under way: the intent is stored, the answer never seen."""
    send = PikaHook.encrypt_text

    def send_and_die(self: PikaHook, **fields: Any) -> None:
        if made:
            send(self, **fields)
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PikaHook, "encrypt_text", send_and_die)
        with pytest.raises(Killed):
            task.leg()
    assert record(task)["jobid"] is None
    assert record(task)["reply_ref"]


def record(task: Life) -> dict[str, Any]:
    return task.store.get(SUBMIT_KEY)


def crash_after_store(task: Life) -> None:
    """End the process after the jobid was stored and before anything was pushed."""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task.ti, "xcom_push", kill)
        with pytest.raises(Killed):
            task.leg()


# 1. Intent, then jobid


def test_nothing_is_sent_when_the_intent_cannot_be_stored(pika_emulator: EmulatorClient, life: Lives) -> None:
    task = life(submit())
    task.store.fails_on = lambda key, value: True

    assert task.run().state == "up_for_retry"
    assert pika_emulator.counters()["requests"] == 0


def test_the_intent_is_there_before_the_post_and_the_jobid_after_it(pika_emulator: EmulatorClient, life: Lives) -> None:
    task = life(submit())
    written: list[tuple[int, dict[str, Any]]] = []
    task.store.fails_on = lambda key, value: written.append((asked(pika_emulator), value))  # type: ignore[func-returns-value]

    ending = task.run()

    (before, intent), (after, kept) = [(n, value) for n, value in written if "reply_ref" in value or "jobid" in value]
    (job,) = pika_emulator.jobs()
    assert (before, after) == (0, 1)
    assert intent["jobid"] is None
    assert intent["reply_ref"] == job["replyRef"]
    assert kept["jobid"] == ending.value == job["jobid"]


@pytest.mark.parametrize("stored", [True, False], ids=["store", "storeless"])
def test_what_is_sent_and_stored_leaks_no_names_and_no_inputs(
    pika_emulator: EmulatorClient, life: Lives, stored: bool
) -> None:
    task = life(submit(message="TOPSECRET", prompt="a merger"), stored=stored, task_id="secret_task")
    task.run()

    (job,) = pika_emulator.jobs()
    said = job["replyRef"] + (repr(list(task.store.values.values())) if task.store else "")
    for name in ("my_dag", "manual__", "secret_task", "TOPSECRET", "merger"):
        assert name not in said


def test_a_store_that_fails_after_the_answer_still_leaves_the_jobid_in_the_log_and_is_found_again(
    pika_emulator: EmulatorClient, life: Lives
) -> None:
    task = life(submit())
    task.store.fails_on = lambda key, value: bool(value.get("jobid"))

    assert task.run().state == "up_for_retry"
    (jobid,) = jobids(pika_emulator)
    assert jobid in task.log.text

    task.store.fails_on = lambda key, value: False
    assert task.retry().value == jobid
    assert jobids(pika_emulator) == [jobid]


@pytest.mark.parametrize("kind", ["bad_request", "unauthorized", "payment", "moderated", "queue_full", "discord_429"])
def test_a_refusal_clears_the_intent(pika_emulator: EmulatorClient, life: Lives, kind: str) -> None:
    pika_emulator.fault("submit", kind)
    task = life(submit())

    with pytest.raises(Exception):  # noqa: B017, PT011 - which one is another test's question
        task.leg()

    assert record(task)["reply_ref"] is None
    assert record(task)["jobid"] is None


def test_a_crash_between_the_stored_jobid_and_xcom_costs_nothing(pika_emulator: EmulatorClient, life: Lives) -> None:
    task = life(submit())
    crash_after_store(task)
    (jobid,) = jobids(pika_emulator)

    assert task.retry().xcoms == {"jobid": jobid, "return_value": jobid}
    assert asked(pika_emulator) == 1


# 3. Unknown outcome within the attempt

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
def test_a_job_listed_late_is_found_within_half_a_minute(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock, stored: bool
) -> None:
    pika_emulator.fault("submit", "drop_after")
    pika_emulator.fault("submit", "late_listing", seconds=15)

    ending = life(submit(), stored=stored).run()

    assert [ending.value] == jobids(pika_emulator)
    assert sum(clock.sleeps) <= 30
    assert all(pause >= 10 for pause in clock.sleeps if pause)


@STORES
@pytest.mark.parametrize("kind", ["drop_before", "server_error", "html"])
def test_a_young_submit_that_made_no_job_is_sent_once_more(
    pika_emulator: EmulatorClient, life: Lives, kind: str, stored: bool
) -> None:
    pika_emulator.fault("submit", kind)
    task = life(submit(), stored=stored)

    assert task.run().state == "success"
    assert len(pika_emulator.jobs()) == 1
    assert asked(pika_emulator) == 2
    assert "submitting once more" in task.log.text


@STORES
def test_a_second_lost_answer_ends_the_try_without_another_search(
    pika_emulator: EmulatorClient, life: Lives, stored: bool
) -> None:
    pika_emulator.fault("submit", "drop_before", times=5)

    ending = life(submit(), stored=stored).run()

    assert type(ending.error) is AirflowFailException
    assert type(ending.cause) is PikaUnknownOutcomeError
    assert asked(pika_emulator) == 2
    assert pika_emulator.counters()["lists"] <= 4


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
def test_when_the_looks_fail_nothing_is_submitted_again(
    pika_emulator: EmulatorClient, life: Lives, on: str, stored: bool
) -> None:
    life(submit(), task_id="a_neighbour").run()
    pika_emulator.fault("submit", "drop_before")
    pika_emulator.fault(on, "server_error", status=503, times=100)

    ending = life(submit(), stored=stored).run()

    assert type(ending.cause) is PikaUnknownOutcomeError
    assert asked(pika_emulator) == 2  # the neighbour's and this one


@STORES
def test_when_the_answer_took_a_minute_to_be_lost_nothing_is_submitted_again(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock, monkeypatch: pytest.MonkeyPatch, stored: bool
) -> None:
    """A made job could have run and ended meanwhile."""
    pika_emulator.fault("submit", "drop_before")
    send = PikaHook.encrypt_text

    def slowly(self: PikaHook, **fields: Any) -> Any:
        clock.leap(59)
        return send(self, **fields)

    monkeypatch.setattr(PikaHook, "encrypt_text", slowly)

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


# 2. Coming back


def test_a_young_intent_whose_job_runs_is_adopted(pika_emulator: EmulatorClient, life: Lives) -> None:
    task = life(submit())
    crash_before_answer(task)

    ending = task.retry()

    assert [ending.value] == jobids(pika_emulator)
    assert ending.xcoms["jobid"] == ending.value
    assert asked(pika_emulator) == 1


def test_an_old_intent_whose_job_still_runs_is_adopted(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock
) -> None:
    task = life(submit())
    crash_before_answer(task)
    clock.leap(400)

    assert [task.retry().value] == jobids(pika_emulator)


def test_a_young_intent_that_made_no_job_is_submitted_again(pika_emulator: EmulatorClient, life: Lives) -> None:
    task = life(submit())
    crash_before_answer(task, made=False)

    assert task.retry().state == "success"
    assert len(pika_emulator.jobs()) == 1


def test_an_old_intent_alone_fails_and_says_what_a_clear_means(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock
) -> None:
    task = life(submit())
    crash_before_answer(task)
    clock.leap(700)  # the job has run and ended

    ending = task.retry()

    assert type(ending.error) is AirflowFailException
    assert type(ending.cause) is PikaUnknownOutcomeError
    assert "clearing the task means" in str(ending.error)
    assert asked(pika_emulator) == 1


def test_an_old_intent_alone_is_submitted_again_with_resubmit_unknown(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock
) -> None:
    task = life(submit(resubmit_unknown=True))
    crash_before_answer(task)
    clock.leap(700)

    assert task.retry().state == "success"
    assert asked(pika_emulator) == 2


@pytest.mark.parametrize("resubmit_unknown", [True, False])
@pytest.mark.parametrize("on", ["list", "job"])
def test_when_the_look_for_an_intent_fails_the_try_may_be_retried_and_nothing_is_sent(
    pika_emulator: EmulatorClient, life: Lives, on: str, resubmit_unknown: bool
) -> None:
    task = life(submit(resubmit_unknown=resubmit_unknown))
    crash_before_answer(task)
    pika_emulator.fault(on, "server_error", status=503, times=LOOKS)

    ending = task.retry()
    assert ending.state == "up_for_retry"
    assert type(ending.error) is PikaUnavailableError
    assert "HTTP 503" in str(ending.error)
    assert [task.retry().value] == jobids(pika_emulator)


@pytest.mark.parametrize("kind", ["server_error", "drop_before", "html"])
def test_a_look_for_an_intent_that_fails_once_is_repeated_in_the_same_try(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock, kind: str
) -> None:
    task = life(submit())
    crash_before_answer(task)
    pika_emulator.fault("list", kind)

    assert [task.retry().value] == jobids(pika_emulator)
    assert clock.sleeps == [15]


def test_a_429_to_the_look_for_an_intent_is_waited_out_in_place_if_short_else_by_a_retry(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock
) -> None:
    task = life(submit())
    crash_before_answer(task)
    pika_emulator.fault("list", "rate_limit", retry_after=600)
    pika_emulator.fault("list", "rate_limit", retry_after=22)

    assert type(task.retry().error) is PikaUnavailableError
    assert clock.sleeps == []
    assert [task.retry().value] == jobids(pika_emulator)
    assert clock.sleeps == [22]


@pytest.mark.parametrize("status", ["started", "progress", "completed", "a_new_state"])
def test_a_retry_goes_on_with_a_job_that_runs_or_has_completed(
    pika_emulator: EmulatorClient, life: Lives, status: str
) -> None:
    task = life(submit())
    jobid = task.run().value
    pika_emulator.advance(jobid=jobid, status=status)

    ending = task.retry()

    assert ending.xcoms == {"jobid": jobid, "return_value": jobid}
    assert asked(pika_emulator) == 1
    assert pika_emulator.counters()["polls"]["total"] == 1


def test_a_retry_makes_a_new_job_where_the_first_one_failed(pika_emulator: EmulatorClient, life: Lives) -> None:
    task = life(submit())
    first = task.run().value
    pika_emulator.advance(jobid=first, status="failed")

    ending = task.retry()

    assert jobids(pika_emulator) == [first, ending.value]
    assert ending.xcoms == {"jobid": ending.value, "return_value": ending.value}


@pytest.mark.parametrize("status", ["moderated", "cancelled"])
def test_a_retry_fails_where_the_first_job_was_moderated_or_cancelled(
    pika_emulator: EmulatorClient, life: Lives, status: str
) -> None:
    task = life(submit())
    jobid = task.run().value
    pika_emulator.advance(jobid=jobid, status=status)

    ending = task.retry()

    assert type(ending.error) is AirflowFailException
    assert type(ending.cause) is PikaJobFailedError
    assert ending.cause.jobid == jobid
    assert ending.xcoms == {"jobid": jobid}
    assert asked(pika_emulator) == 1


def test_a_retry_with_changed_inputs_goes_on_with_a_warning(pika_emulator: EmulatorClient, life: Lives) -> None:
    task = life(submit())
    jobid = task.run().value

    assert task.retry(submit(prompt="clouds")).value == jobid
    assert any("inputs have changed" in text for text in task.log.of("warning"))
    assert asked(pika_emulator) == 1


def test_a_retry_whose_look_fails_in_passing_may_be_retried_and_submits_nothing(
    pika_emulator: EmulatorClient, life: Lives
) -> None:
    task = life(submit())
    jobid = task.run().value
    pika_emulator.fault("job", "server_error", status=502, times=LOOKS)

    ending = task.retry()
    assert type(ending.error) is PikaUnavailableError
    assert ending.xcoms == {"jobid": jobid}
    assert task.retry().value == jobid
    assert asked(pika_emulator) == 1


def test_a_429_to_a_retrys_look_is_not_told_as_a_full_queue(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock
) -> None:
    """A retry the next day has its job already: what is throttled is a read, not a submit that timed out."""
    task = life(submit(queue_timeout=3600))
    jobid = task.run().value
    clock.leap(24 * 3600)
    pika_emulator.fault("job", "rate_limit", retry_after=20)

    ending = task.retry()

    assert not isinstance(ending.error, AirflowSensorTimeout), ending.error
    assert ending.xcoms["jobid"] == jobid
    assert asked(pika_emulator) == 1


def test_a_retry_waits_for_a_job_so_fresh_that_the_api_does_not_show_it_yet(
    pika_emulator: EmulatorClient, life: Lives
) -> None:
    task = life(submit())
    jobid = task.run().value
    pika_emulator.fault("job", "not_found")

    assert task.retry().value == jobid
    assert asked(pika_emulator) == 1


def test_a_retry_whose_job_the_api_has_forgotten_fails(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock
) -> None:
    task = life(submit())
    jobid = task.run().value
    clock.leap(3600)
    pika_emulator.fault("job", "not_found")

    ending = task.retry()

    assert type(ending.error) is AirflowFailException
    assert type(ending.cause) is PikaNotFoundError
    assert ending.xcoms == {"jobid": jobid}
    assert asked(pika_emulator) == 1


# 4. A clear by a person


def test_a_clear_goes_on_with_a_job_that_runs_on_the_same_inputs(pika_emulator: EmulatorClient, life: Lives) -> None:
    task = life(submit())
    jobid = task.run().value

    assert task.clear().xcoms == {"jobid": jobid, "return_value": jobid}
    assert asked(pika_emulator) == 1
    assert task.retry().value == jobid  # the clear itself is remembered as done with
    pika_emulator.advance(jobid=jobid, status="completed")
    assert task.retry().value == jobid
    assert asked(pika_emulator) == 1


@pytest.mark.parametrize(
    ("status", "prompt"),
    [
        ("started", "clouds"),
        ("completed", "waves"),
        ("completed", "clouds"),
        ("failed", "waves"),
        ("moderated", "waves"),
        ("cancelled", "waves"),
    ],
)
def test_a_clear_makes_a_new_job_where_the_old_one_has_ended_or_the_inputs_changed(
    pika_emulator: EmulatorClient, life: Lives, status: str, prompt: str
) -> None:
    task = life(submit())
    first = task.run().value
    pika_emulator.advance(jobid=first, status=status)

    ending = task.clear(submit(prompt=prompt))

    assert jobids(pika_emulator) == [first, ending.value]
    assert ending.xcoms == {"jobid": ending.value, "return_value": ending.value}
    assert task.retry().value == ending.value
    assert asked(pika_emulator) == 2


def test_a_cleared_try_that_dies_early_is_still_a_clear_for_the_retry_after_it(
    pika_emulator: EmulatorClient, life: Lives
) -> None:
    task = life(submit())
    first = task.run().value
    pika_emulator.advance(jobid=first, status="completed")
    pika_emulator.fault("job", "server_error", status=503, times=LOOKS)
    assert task.clear().state == "up_for_retry"

    assert task.retry().value != first


def test_a_clear_that_airflow_counts_as_a_retry_does_not_pay_again(pika_emulator: EmulatorClient, life: Lives) -> None:
    """A running task is cleared and its executor reports a failure: the job is kept, with a warning of other inputs."""
    task = life(submit())
    crash_before_answer(task)

    ending = task.retry(submit(prompt="something else"))

    assert [ending.value] == jobids(pika_emulator)
    assert any("inputs have changed" in text for text in task.log.of("warning"))


def test_a_clear_whose_old_job_is_unknown_to_the_api_makes_a_new_one(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock
) -> None:
    task = life(submit())
    first = task.run().value
    clock.leap(3600)
    pika_emulator.fault("job", "not_found")

    assert task.clear().value != first
    assert asked(pika_emulator) == 2


def test_a_clear_adopts_the_running_job_of_an_orphaned_intent(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock
) -> None:
    task = life(submit())
    crash_before_answer(task)
    clock.leap(200)

    assert [task.clear().value] == jobids(pika_emulator)
    assert asked(pika_emulator) == 1


@pytest.mark.parametrize(("later", "prompt"), [(700, "waves"), (5, "clouds")], ids=["gone", "changed"])
def test_a_clear_submits_anew_from_an_orphaned_intent_that_is_gone_or_asked_for_something_else(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock, later: float, prompt: str
) -> None:
    task = life(submit())
    crash_before_answer(task)
    clock.leap(later)

    assert task.clear(submit(prompt=prompt)).state == "success"
    assert asked(pika_emulator) == len(pika_emulator.jobs()) == 2


# The user's own reply_ref


def named(index: object = "") -> str:
    return f"mine my_dag manual__2026-01-02T03:04:05+00:00 submit {index}"


def test_a_users_reply_ref_that_names_the_task_finds_its_job(pika_emulator: EmulatorClient, life: Lives) -> None:
    pika_emulator.fault("submit", "drop_after")

    ending = life(submit(reply_ref=named())).run()

    (job,) = pika_emulator.jobs()
    assert (job["jobid"], job["replyRef"]) == (ending.value, named())


@STORES
@pytest.mark.parametrize(
    ("map_index", "reply_ref"),
    [(-1, "order 7"), (3, named()), (3, named(13))],
    ids=["order", "no_index", "other_index"],
)
def test_a_users_reply_ref_that_others_may_share_is_sent_but_never_used_to_adopt(
    pika_emulator: EmulatorClient, life: Lives, map_index: int, reply_ref: str, stored: bool
) -> None:
    other = life(submit(reply_ref=reply_ref), task_id="another").run().value
    pika_emulator.fault("submit", "drop_after")

    ending = life(submit(reply_ref=reply_ref), map_index=map_index, stored=stored).run()

    assert type(ending.cause) is PikaUnknownOutcomeError
    assert ending.value != other
    assert [job["replyRef"] for job in pika_emulator.jobs()] == [reply_ref] * 2


@pytest.mark.parametrize("later", ["order 8", None], ids=["changed", "removed"])
def test_a_shared_reply_ref_is_not_trusted_on_a_retry_because_it_has_changed_since(
    pika_emulator: EmulatorClient, life: Lives, later: str | None
) -> None:
    """A reference like ``{{ ts }}-{{ ti.try_number }}`` is another one on each try, and still the user's own."""
    another = life(submit(reply_ref="order 7"), task_id="another").run().value
    task = life(submit(reply_ref="order 7"))
    crash_before_answer(task, made=False)

    ending = task.retry(submit(reply_ref=later))

    assert ending.value != another, "it took over another task's job"


def test_a_number_that_all_instances_share_is_no_map_index(pika_emulator: EmulatorClient, life: Lives) -> None:
    """``order 3 {{ dag.dag_id }} {{ run_id }} {{ task.task_id }}`` is the same text in instance 3 and in instance 1."""
    shared = "order 3 my_dag manual__2026-01-02T03:04:05+00:00 submit"
    first = life(submit(reply_ref=shared), map_index=1).run().value
    pika_emulator.fault("submit", "drop_before")

    ending = life(submit(reply_ref=shared), map_index=3).run()

    assert ending.value != first, "it took over another instance's job"


# Below Airflow 3.3, without a store


def test_without_a_store_a_second_try_finds_the_running_job_of_the_first(
    pika_emulator: EmulatorClient, life: Lives
) -> None:
    task = life(submit(), stored=False)
    jobid = task.run().value

    ending = task.retry()

    assert ending.xcoms == {"jobid": jobid, "return_value": jobid}
    assert asked(pika_emulator) == 1


def test_without_a_store_the_reference_is_the_same_on_every_try_and_another_for_every_other_task(
    pika_emulator: EmulatorClient, life: Lives
) -> None:
    task = life(submit(), stored=False)
    pika_emulator.configure(seconds=0)  # nothing is found, so each try submits
    task.run()
    task.retry()
    task.retry()
    for about in ({"map_index": 1}, {"map_index": 2}, {"run_id": "b"}, {"dag_id": "b"}, {"task_id": "b"}):
        life(submit(), stored=False, **about).run()
    life(submit(prompt="clouds"), stored=False).run()

    references = [job["replyRef"] for job in pika_emulator.jobs()]
    assert len(set(references[:3])) == 1
    assert len(set(references[2:])) == 7
    assert all(re.fullmatch(r"airflow-[0-9a-f]+", reference) for reference in references)


def test_without_a_store_later_legs_do_not_search_again(pika_emulator: EmulatorClient, life: Lives) -> None:
    pika_emulator.fault("submit", "queue_full", times=5)
    task = life(submit(), stored=False)
    task.run()
    assert pika_emulator.counters()["lists"] == 0

    pika_emulator.configure(seconds=0)
    task = life(submit(), stored=False, task_id="b")
    task.ti.try_number = 2
    pika_emulator.fault("submit", "queue_full", times=5)
    assert task.run().legs == 6
    # Half a minute of looks in the first leg, 10 s apart, and none in the five after it.
    assert pika_emulator.counters()["lists"] == 4


def test_without_a_store_a_search_that_was_turned_away_is_not_taken_for_one_that_found_nothing(
    pika_emulator: EmulatorClient, life: Lives
) -> None:
    """The second try's look answers 429: the leg after that must look again, not submit."""
    task = life(submit(), stored=False)
    jobid = task.run().value
    pika_emulator.fault("list", "rate_limit", retry_after=20)

    ending = task.retry()

    assert ending.value == jobid
    assert asked(pika_emulator) == 1


def test_without_a_store_a_search_that_fails_submits_nothing(pika_emulator: EmulatorClient, life: Lives) -> None:
    task = life(submit(), stored=False)
    jobid = task.run().value
    pika_emulator.fault("list", "server_error", status=503, times=LOOKS)

    assert type(task.retry().error) is PikaUnavailableError
    assert task.retry().value == jobid
    assert asked(pika_emulator) == 1


def test_without_a_store_two_instances_never_take_over_each_others_job(
    pika_emulator: EmulatorClient, life: Lives
) -> None:
    lives = [life(submit(), stored=False, map_index=index) for index in range(3)]
    first = [task.run().value for task in lives]

    assert [task.retry().value for task in lives] == first
    assert len(pika_emulator.jobs()) == 3


def test_a_listed_job_that_cannot_be_read_yet_is_no_reason_to_give_up(
    pika_emulator: EmulatorClient, life: Lives
) -> None:
    """A fresh jobid may answer 404 for a moment: it may be the very job that is looked for."""
    task = life(submit())
    crash_before_answer(task)
    pika_emulator.fault("job", "not_found", times=LOOKS - 1)

    assert [task.retry().value] == jobids(pika_emulator)
    assert asked(pika_emulator) == 1


@pytest.mark.parametrize("clear", [False, True])
def test_a_retry_soon_after_a_crash_gives_the_service_time_to_list_the_job(
    pika_emulator: EmulatorClient, life: Lives, clear: bool
) -> None:
    """The job shows up 20 s late; a look at once would find nothing and pay again."""
    pika_emulator.fault("submit", "late_listing", seconds=20)
    task = life(submit())
    crash_before_answer(task)

    ending = task.clear() if clear else task.retry()

    assert [ending.value] == jobids(pika_emulator)
    assert asked(pika_emulator) == 1


def test_a_lost_answer_after_a_clear_does_not_bring_back_the_old_job(
    pika_emulator: EmulatorClient, life: Lives
) -> None:
    """With a reference of the user's own both jobs carry it; the one with the old inputs is not what was asked for."""
    ref = "my_dag/manual__2026-01-02T03:04:05+00:00/submit"
    task = life(submit(reply_ref=ref, prompt="waves"))
    first = task.run().value
    pika_emulator.fault("submit", "drop_after")

    ending = task.clear(submit(reply_ref=ref, prompt="other"))

    assert ending.value != first
    assert [job["prompt"] for job in pika_emulator.jobs() if job["jobid"] == ending.value] == ["other"]
    assert len(pika_emulator.jobs()) == 2


def test_what_fails_before_the_post_leaves_no_intent(
    pika_emulator: EmulatorClient, life: Lives, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A secrets backend that fails once: the retry, however late, submits as if nothing had been."""
    task = life(submit())
    with monkeypatch.context() as broken:
        broken.setattr(PikaHook, "get_connection", lambda *_: (_ for _ in ()).throw(RuntimeError("no backend")))
        assert "no backend" in str(task.run().error)

    assert task.retry().state == "success"
    assert asked(pika_emulator) == 1


def test_a_task_that_is_being_killed_submits_nothing_more(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow lets a killed process go on for some seconds; in them it must not pay."""
    operator = submit()()
    airflow_says(monkeypatch, "failed")
    pika_emulator.fault("submit", "drop_before")
    sleep = clock.sleep

    def killed_meanwhile(seconds: float) -> None:
        operator.on_kill()
        sleep(seconds)

    monkeypatch.setattr(clock, "sleep", killed_meanwhile)
    monkeypatch.setattr("airflow_provider_pika.operators.submission.time.sleep", killed_meanwhile)

    assert "being killed" in str(life(lambda: operator).run().error)
    assert asked(pika_emulator) == 1
    assert pika_emulator.jobs() == []


def test_a_retry_after_a_504_never_submits_again_however_young_the_intent(
    pika_emulator: EmulatorClient, life: Lives, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while it looks for the job of a 504: the service lost track of that job, so no list proves anything."""
    task = life(submit())
    pika_emulator.fault("submit", "server_error", status=504, work=False)
    with monkeypatch.context() as dying:
        dying.setattr(Submission, "_search", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with contextlib.suppress(KeyboardInterrupt):
            task.run()

    ending = task.retry()

    assert isinstance(ending.error.__cause__, PikaUnknownOutcomeError)
    assert asked(pika_emulator) == 1
