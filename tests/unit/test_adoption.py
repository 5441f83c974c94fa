"""Coming back to a submit that may be paid for already: issue 3, points 2 to 4, as tables."""

from __future__ import annotations

import json

import pytest

from airflow_provider_pika.api.adoption import YOUNG, Next, Record, after_reading, after_searching, digest, names_task
from airflow_provider_pika.api.job import Job

RECORD = Record(2, 1, 1000.5, "digest", "airflow-1", 1001.25, "job:1")


@pytest.mark.parametrize("same_inputs", [True, False])
@pytest.mark.parametrize(
    ("status", "step"),
    [
        ("created", Next.GO_ON),
        ("started", Next.GO_ON),
        ("progress", Next.GO_ON),
        ("upscaling", Next.GO_ON),
        ("", Next.GO_ON),
        ("completed", Next.GO_ON),
        ("failed", Next.SUBMIT),
        ("moderated", Next.FAIL),
        ("cancelled", Next.FAIL),
    ],
)
def test_a_retry_pays_again_only_for_a_failed_job_whatever_became_of_the_inputs(
    status: str, step: Next, same_inputs: bool
) -> None:
    job = Job("job:1", status, {})
    assert after_reading(job, cleared=False, same_inputs=same_inputs) is step


@pytest.mark.parametrize("status", ["created", "started", "progress", "upscaling", ""])
@pytest.mark.parametrize(("same_inputs", "step"), [(True, Next.GO_ON), (False, Next.SUBMIT)])
def test_a_clear_keeps_a_running_job_only_on_the_same_inputs(status: str, same_inputs: bool, step: Next) -> None:
    assert after_reading(Job("job:1", status, {}), cleared=True, same_inputs=same_inputs) is step


@pytest.mark.parametrize("same_inputs", [True, False])
@pytest.mark.parametrize("status", ["completed", "failed", "moderated", "cancelled"])
def test_a_clear_makes_a_new_job_in_place_of_an_ended_one(status: str, same_inputs: bool) -> None:
    assert after_reading(Job("job:1", status, {}), cleared=True, same_inputs=same_inputs) is Next.SUBMIT


@pytest.mark.parametrize(
    ("age", "complete", "cleared", "resubmit_unknown", "step"),
    [
        (0, True, False, False, Next.SUBMIT),
        (59.9, True, False, False, Next.SUBMIT),
        (60, True, False, False, Next.FAIL),
        (3600, True, False, False, Next.FAIL),
        (0, False, False, False, Next.FAIL),
        (3600, True, False, True, Next.SUBMIT),
        (0, False, False, True, Next.SUBMIT),
        (3600, False, True, False, Next.SUBMIT),
        (0, True, True, False, Next.SUBMIT),
    ],
)
def test_a_lost_submit_is_repeated_only_if_young_or_by_a_persons_word(
    age: float, complete: bool, cleared: bool, resubmit_unknown: bool, step: Next
) -> None:
    decided = after_searching(age=age, complete=complete, cleared=cleared, resubmit_unknown=resubmit_unknown)
    assert decided is step


def test_an_intent_is_young_for_a_minute() -> None:
    assert YOUNG == 60


def test_a_record_survives_json() -> None:
    assert Record.from_json(json.loads(json.dumps(RECORD.to_json()))) == RECORD


def test_a_record_of_a_later_version_is_read() -> None:
    assert Record.from_json({**RECORD.to_json(), "new": [1]}) == RECORD


def test_a_record_of_an_earlier_version_may_lack_what_has_a_default() -> None:
    record = Record.from_json({"max_tries": 2, "try_number": 1, "queued_since": 1.0})
    assert (record.inputs, record.reply_ref, record.asked_at, record.jobid) == ("", None, 0.0, None)


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ([{"a": 1, "b": 2}], [{"b": 2, "a": 1}], True),
        ([{"a": 1}], [{"a": "1"}], False),
        ([{"a": None}], [{}], False),
        (["ab", "c"], ["a", "bc"], False),
        ([1, 2], [2, 1], False),
    ],
)
def test_a_digest_tells_different_inputs_apart(one: list[object], other: list[object], equal: bool) -> None:
    assert (digest(*one) == digest(*other)) is equal


def test_a_digest_leaks_no_names_and_fits_a_reply_ref() -> None:
    made = digest("my_dag", {"prompt": "waves"})
    assert len(made) == 64
    assert "my_dag" not in made


@pytest.mark.parametrize(
    ("reply_ref", "map_index", "named"),
    [
        ("dag/run/task", -1, True),
        ("task of run in dag", -1, True),
        ("dag/run", -1, False),
        ("dag/task", -1, False),
        ("run/task", -1, False),
        ("order 17", -1, False),
        ("", -1, False),
        ("dag/run/task", 0, False),
        ("dag/run/tasks", -1, False),
        ("dag/run/sub-task", -1, False),
        ("dag/rerun/task", -1, False),
        ("dag run (task)", -1, True),
        ("dag/run/task/0", 0, False),
        ("dag/run/task/1", 0, False),
        ("dag/run/task/10", 1, False),
        ("dag/run/task/10", 0, False),
        ("dag/run/task[3]", 3, False),
    ],
)
def test_a_users_reference_is_trusted_only_if_it_names_this_task_instance(
    reply_ref: str, map_index: int, named: bool
) -> None:
    assert names_task(reply_ref, dag_id="dag", run_id="run", task_id="task", map_index=map_index) is named


def test_the_map_index_is_not_taken_from_the_run_id() -> None:
    ref = "d/manual__2024-01-03/t"
    assert not names_task(ref, dag_id="d", run_id="manual__2024-01-03", task_id="t", map_index=3)
    assert not names_task(ref, dag_id="d", run_id="manual__2024-01-03", task_id="t", map_index=1)


def test_one_name_does_not_serve_for_two_of_the_parts() -> None:
    """A dag and a task of the same name must both be in the reference."""
    assert not names_task("video/run", dag_id="video", run_id="run", task_id="video", map_index=-1)
    assert names_task("video/run/video", dag_id="video", run_id="run", task_id="video", map_index=-1)
