"""Coming back to a submit that may be paid for already, as tables."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from airflow_provider_pika.api.callback import mailbox_key, reply_url
from airflow_provider_pika.api.job import Job
from airflow_provider_pika.api.recovery import (
    CALLBACK_POLLS,
    SEARCH_POLLS,
    LostAnswer,
    Next,
    Record,
    after_reading,
    after_search,
    digest,
    names_task,
)

MAILBOX = mailbox_key("t" * 32)
RECORD = Record(
    2, 1, 1000.5, "digest", "airflow-1", True, 1001.25, "job:1", {"message": "lost"}, ("job:0",), 1, 2, 3, 1, MAILBOX
)
TRUSTED = Record(2, 1, 0.0, reply_ref="airflow-1")
SHARED = replace(TRUSTED, trusted=False)
CALLED_BACK = replace(TRUSTED, mailbox=MAILBOX)
RUNNING = ["created", "started", "progress", "upscaling", ""]
ENDED = ["completed", "failed", "moderated", "cancelled"]


def read(status: str, **about: bool) -> Next:
    defaults = {"cleared": False, "same_inputs": True, "retry_failed": False, "keep_completed": False}
    return after_reading(Job("job:1", status, {}), **{**defaults, **about})


@pytest.mark.parametrize("same_inputs", [True, False])
@pytest.mark.parametrize("retry_failed", [True, False])
@pytest.mark.parametrize("status", [*RUNNING, "completed"])
def test_a_retry_goes_on_with_a_job_that_runs_or_has_completed_whatever_became_of_the_inputs(
    status: str, retry_failed: bool, same_inputs: bool
) -> None:
    assert read(status, same_inputs=same_inputs, retry_failed=retry_failed) is Next.GO_ON


@pytest.mark.parametrize("status", ["failed", "moderated", "cancelled"])
def test_a_retry_pays_again_only_for_a_failed_job_and_only_by_the_flag(status: str) -> None:
    assert read(status) is Next.FAIL
    assert read(status, retry_failed=True) is (Next.SUBMIT if status == "failed" else Next.FAIL)


@pytest.mark.parametrize("status", RUNNING)
@pytest.mark.parametrize("keep", [True, False])
def test_a_clear_keeps_a_running_job_only_on_the_same_inputs(status: str, keep: bool) -> None:
    assert read(status, cleared=True, keep_completed=keep) is Next.GO_ON
    assert read(status, cleared=True, keep_completed=keep, same_inputs=False) is Next.SUBMIT


@pytest.mark.parametrize("same_inputs", [True, False])
@pytest.mark.parametrize("status", ENDED)
def test_a_clear_makes_a_new_job_in_place_of_an_ended_one(status: str, same_inputs: bool) -> None:
    assert read(status, cleared=True, same_inputs=same_inputs, retry_failed=True) is Next.SUBMIT


@pytest.mark.parametrize("same_inputs", [True, False])
@pytest.mark.parametrize("status", ENDED)
def test_a_clear_that_keeps_hands_on_only_what_has_completed_on_the_same_inputs(status: str, same_inputs: bool) -> None:
    kept = status == "completed" and same_inputs
    step = read(status, cleared=True, same_inputs=same_inputs, keep_completed=True)
    assert step is (Next.GO_ON if kept else Next.SUBMIT)


# After a lost answer, in the process that lost it


def steps(polls: list[tuple[float, bool]], may_submit: bool = True) -> list[Next]:
    search = LostAnswer(may_submit)
    return [search.after_poll(went_through=through, asked=age, answered=age) for age, through in polls]


EVERY_TEN = [(0.5 + 10 * n, True) for n in range(7)]


def test_polls_from_the_start_to_a_minute_after_prove_that_no_job_was_made() -> None:
    assert steps(EVERY_TEN) == [Next.POLL] * 6 + [Next.SUBMIT]


@pytest.mark.parametrize(("first", "step"), [(19.9, Next.POLL), (20.1, Next.RESCHEDULE)])
def test_a_first_poll_later_than_any_job_can_end_proves_nothing(first: float, step: Next) -> None:
    assert steps([(first, True)]) == [step]


def test_a_first_poll_that_failed_may_be_repeated_until_then() -> None:
    polls = [(1, False), (11, False), (19, True), (29, True), (39, True), (49, True), (59, True), (69, True)]
    assert steps(polls) == [Next.POLL] * 7 + [Next.SUBMIT]
    assert steps([(1, False), (11, False), (21, False)])[-1] is Next.RESCHEDULE


def test_a_minute_without_a_poll_that_went_through_proves_nothing() -> None:
    assert steps([(1, True), (11, False), (61, False)])[-1] is Next.RESCHEDULE
    assert steps([*EVERY_TEN[:6], (60, False)])[-1] is Next.POLL


@pytest.mark.parametrize(("gap", "step"), [(15, Next.SUBMIT), (16, Next.RESCHEDULE)])
def test_a_job_could_come_and_go_between_polls_further_apart(gap: float, step: Next) -> None:
    """So shows a process that was stopped and continued, too."""
    assert steps([*EVERY_TEN[:6], (50.5 + gap, True)])[-1] is step


def test_polls_that_fail_for_too_long_release_the_worker() -> None:
    assert steps([*EVERY_TEN[:6], (61, False), (71, False)])[-2:] == [Next.POLL, Next.RESCHEDULE]


def test_a_list_proves_nothing_of_the_time_in_which_its_jobs_were_read() -> None:
    """Asked at 57 s and done at 61 s, it says nothing of a job that is listed at 58 s."""
    search = LostAnswer(may_submit=True)
    for n in range(5):
        assert search.after_poll(went_through=True, asked=10 * n, answered=10 * n) is Next.POLL
    assert search.after_poll(went_through=True, asked=50, answered=55) is Next.POLL
    assert search.after_poll(went_through=True, asked=57, answered=61) is Next.POLL
    assert search.after_poll(went_through=True, asked=71, answered=71.5) is Next.SUBMIT


def test_a_first_poll_counts_as_late_as_it_was_answered() -> None:
    """A job that was listed at once may have ended by then, and the answer may have been made without it."""
    assert LostAnswer(may_submit=True).after_poll(went_through=True, asked=19, answered=21) is Next.RESCHEDULE


def test_what_may_not_be_sent_again_is_searched_for_from_later_legs() -> None:
    assert steps(EVERY_TEN, may_submit=False) == [Next.RESCHEDULE] * 7


# In a later attempt


@pytest.mark.parametrize(
    ("polls", "record", "cleared", "resubmit_unknown", "step"),
    [
        (1, TRUSTED, False, False, Next.RESCHEDULE),
        (SEARCH_POLLS - 1, TRUSTED, True, True, Next.RESCHEDULE),
        (SEARCH_POLLS, TRUSTED, False, False, Next.FAIL),
        (SEARCH_POLLS, TRUSTED, True, False, Next.SUBMIT),
        (SEARCH_POLLS, TRUSTED, False, True, Next.SUBMIT),
        (0, SHARED, False, False, Next.FAIL),
        (0, SHARED, True, False, Next.SUBMIT),
        (0, SHARED, False, True, Next.SUBMIT),
        # The service names the job as it ends: that is worth some minutes more, but no person's word waits for it.
        (CALLBACK_POLLS - 1, CALLED_BACK, False, False, Next.RESCHEDULE),
        (CALLBACK_POLLS, CALLED_BACK, False, False, Next.FAIL),
        (SEARCH_POLLS, CALLED_BACK, True, False, Next.SUBMIT),
        # What was proved to have made no job stands in nobody's way, once its mailbox was looked into again.
        (1, replace(CALLED_BACK, is_given_up=True), False, False, Next.SUBMIT),
    ],
)
def test_a_later_attempt_never_submits_by_itself(
    polls: int, record: Record, cleared: bool, resubmit_unknown: bool, step: Next
) -> None:
    decided = after_search(record, polls=polls, cleared=cleared, resubmit_unknown=resubmit_unknown, unread=False)
    assert decided is step


@pytest.mark.parametrize(
    ("was_proved", "polls", "cleared", "step"),
    [
        # A person's word waits as it did before it was heeded, and no longer.
        (False, SEARCH_POLLS - 1, False, Next.RESCHEDULE),
        (False, SEARCH_POLLS, False, Next.SUBMIT),
        (True, 1, False, Next.RESCHEDULE),
        (True, CALLBACK_POLLS, False, Next.FAIL),
        (True, SEARCH_POLLS, True, Next.SUBMIT),
    ],
)
def test_a_call_for_a_job_that_cannot_be_read_takes_a_proof_back_and_no_persons_word(
    was_proved: bool, polls: int, cleared: bool, step: Next
) -> None:
    record = replace(CALLED_BACK, is_given_up=True, was_proved=was_proved)
    assert after_search(record, polls=polls, cleared=cleared, resubmit_unknown=False, unread=True) is step


@pytest.mark.parametrize("is_given_up", [True, False])
def test_what_an_earlier_version_gave_up_is_taken_for_proved(is_given_up: bool) -> None:
    written = {**RECORD.to_json(), "is_given_up": is_given_up}
    del written["was_proved"]
    assert Record.from_json(written).was_proved is is_given_up


def test_a_record_survives_json() -> None:
    assert Record.from_json(json.loads(json.dumps(RECORD.to_json()))) == RECORD


@pytest.mark.parametrize(("written", "read_as"), [(None, ()), ("job:0", ("job:0",)), (["a", "b"], ("a", "b"))])
def test_a_record_of_an_earlier_version_ruled_out_one_job_or_none(written: object, read_as: tuple[str, ...]) -> None:
    assert Record.from_json({**RECORD.to_json(), "ruled_out": written}).ruled_out == read_as


OURS = reply_url("https://airflow.example", "ti-1", "t" * 32)
ANOTHERS = reply_url("https://airflow.example", "ti-1", "u" * 32)


@pytest.mark.parametrize(
    ("mailbox", "trusted", "reply_ref", "url", "own"),
    [
        # Without callbacks the reference must name this task alone.
        (None, True, "airflow-1", None, True),
        (None, True, "airflow-2", None, False),
        (None, True, None, None, False),
        (None, False, "airflow-1", None, False),
        # Without a mailbox of its own, the one that the job tells of is no proof against it.
        (None, True, "airflow-1", OURS, True),
        # The mailbox in a job's replyUrl proves whose it is, whatever others use for a reference.
        (MAILBOX, True, "airflow-1", OURS, True),
        (MAILBOX, False, "airflow-1", OURS, True),
        (MAILBOX, True, "airflow-1", ANOTHERS, False),
        (MAILBOX, False, "airflow-1", ANOTHERS, False),
        (MAILBOX, True, "airflow-2", OURS, False),
        # Where the service tells of no replyUrl, or of one of the user's own.
        (MAILBOX, True, "airflow-1", None, True),
        (MAILBOX, False, "airflow-1", None, False),
        (MAILBOX, False, "airflow-1", "https://example.org/mine", False),
    ],
)
def test_a_job_is_known_by_its_reference_and_by_the_mailbox_it_reports_to(
    mailbox: str | None, trusted: bool, reply_ref: str | None, url: str | None, own: bool
) -> None:
    record = Record(2, 1, 1.0, reply_ref="airflow-1", trusted=trusted, mailbox=mailbox)
    assert record.is_own(Job.from_answer({"replyRef": reply_ref, "replyUrl": url}, "job:1")) is own


@pytest.mark.parametrize(
    ("mailbox", "trusted", "searchable"),
    [(None, True, True), (None, False, False), (MAILBOX, True, True), (MAILBOX, False, True)],
)
def test_a_mailbox_makes_a_shared_reference_searchable(mailbox: str | None, trusted: bool, searchable: bool) -> None:
    assert Record(2, 1, 1.0, reply_ref="mine", trusted=trusted, mailbox=mailbox).is_searchable is searchable


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
