"""A clear is a person's word: what it keeps and what it pays for anew. And references of the user's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_pika.api.polling import TRANSIENT_LIMIT
from airflow_provider_pika.emulator.client import EmulatorClient
from airflow_provider_pika.exceptions import PikaUnknownOutcomeError
from airflow_provider_pika.operators.pika import AnimateOperator, CreateOperator, EncryptTextOperator
from tests.support.submits import STORES, Lives, asked, crash_before_answer, jobids, submit
from tests.support.task_context import Clock, airflow_says

pytestmark = pytest.mark.usefixtures("long_jobs")


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
    pika_emulator.fault("job", "server_error", status=503, times=TRANSIENT_LIMIT)
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


@pytest.mark.parametrize(("later", "prompt"), [(4000, "waves"), (5, "clouds")], ids=["gone", "changed"])
def test_a_clear_submits_anew_from_an_orphaned_intent_that_is_gone_or_asked_for_something_else(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock, later: float, prompt: str
) -> None:
    task = life(submit())
    crash_before_answer(task)
    clock.leap(later)

    assert task.clear(submit(prompt=prompt)).state == "success"
    assert asked(pika_emulator) == len(pika_emulator.jobs()) == 2


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


def test_a_clear_with_keep_hands_on_a_completed_job(pika_emulator: EmulatorClient, life: Lives) -> None:
    """A run is cleared because a later step broke: its films need not be paid for again."""
    task = life(submit(on_clear="keep"))
    jobid = task.run().value
    pika_emulator.advance(jobid=jobid, status="completed")

    assert task.clear().xcoms == {"jobid": jobid, "return_value": jobid}
    assert asked(pika_emulator) == 1


@pytest.mark.parametrize(("status", "prompt"), [("completed", "clouds"), ("failed", "waves"), ("moderated", "waves")])
def test_a_clear_with_keep_makes_a_new_job_for_other_inputs_or_where_there_is_no_film(
    pika_emulator: EmulatorClient, life: Lives, status: str, prompt: str
) -> None:
    task = life(submit(on_clear="keep"))
    first = task.run().value
    pika_emulator.advance(jobid=first, status=status)

    assert task.clear(submit(on_clear="keep", prompt=prompt)).value != first
    assert asked(pika_emulator) == 2


def test_a_clear_with_keep_of_a_task_that_waits_pushes_the_finished_job_again(
    pika_emulator: EmulatorClient, life: Lives
) -> None:
    pika_emulator.configure(seconds=5)
    task = life(submit(on_clear="keep", wait_for_completion=True))
    first = task.run()

    again = task.clear()

    assert again.xcoms["job"]["jobid"] == first.value == again.value
    assert again.xcoms["video_url"]
    assert asked(pika_emulator) == 1


def test_on_clear_takes_two_words_only() -> None:
    with pytest.raises(ValueError, match="'new' or 'keep'"):
        submit(on_clear="never")()


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


def test_a_clear_asks_again_for_a_job_the_api_does_not_show_for_a_moment(
    pika_emulator: EmulatorClient, life: Lives
) -> None:
    task = life(submit())
    jobid = task.run().value
    pika_emulator.fault("job", "not_found", times=2)

    assert task.clear().value == jobid
    assert asked(pika_emulator) == 1


def test_a_later_leg_does_not_bring_back_the_job_of_before_the_clear(
    pika_emulator: EmulatorClient, life: Lives
) -> None:
    """Both jobs carry the user's own reference, and the new one's answer is lost for longer than a leg."""
    task = life(submit(reply_ref=named()))
    first = task.run().value
    pika_emulator.fault("submit", "drop_after")
    pika_emulator.fault("submit", "late_listing", seconds=40)
    pika_emulator.fault("list", "server_error", status=503, times=4)

    ending = task.clear(submit(reply_ref=named(), prompt="other"))

    assert ending.legs > 1
    assert jobids(pika_emulator) == [first, ending.value]


def test_a_clear_after_the_command_has_changed_makes_a_new_job(pika_emulator: EmulatorClient, life: Lives) -> None:
    """``create`` and ``animate`` take the same fields, and make different films of them."""
    image = str(Path(__file__).parents[2] / "example_dags" / "pika_campaign_image.png")
    task = life(lambda: CreateOperator(task_id="submit", prompt="waves", image=image))
    first = task.run().value

    assert task.clear(lambda: AnimateOperator(task_id="submit", prompt="waves", image=image)).value != first


def test_below_3_3_a_clear_with_keep_finds_the_job_of_a_task_that_has_succeeded(
    pika_emulator: EmulatorClient, life: Lives, monkeypatch: pytest.MonkeyPatch
) -> None:
    operators: list[EncryptTextOperator] = []
    task = life(lambda: operators.append(submit(on_clear="keep")()) or operators[-1], stored=False)
    jobid = task.run().value
    airflow_says(monkeypatch, "success")
    for callback in operators[-1].on_success_callback:
        callback(task.context())
    pika_emulator.advance(jobid=jobid, status="completed")
    airflow_says(monkeypatch, "running")

    assert task.clear().value == jobid
    assert asked(pika_emulator) == 1
