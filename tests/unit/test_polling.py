"""When to poll again and when to give up."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from airflow_provider_pika.api.job import Job
from airflow_provider_pika.api.polling import (
    FEW_WAITERS,
    LINE_INTERVAL,
    LINES_PER_SECOND,
    MAX_BACKOFF,
    MIN_POLL_INTERVAL,
    NOT_FOUND_LIMIT,
    READ_INTERVAL,
    TRANSIENT_LIMIT,
    Lines,
    PollState,
    Told,
    duration,
    interval_at_least,
    percentage,
    reads_beside_list,
    seconds_of,
    when,
)
from airflow_provider_pika.exceptions import (
    PikaAuthError,
    PikaError,
    PikaJobFailedError,
    PikaModeratedError,
    PikaNotFoundError,
    PikaPaymentError,
    PikaQueueFullError,
    PikaRateLimitedError,
    PikaRequestError,
    PikaUnavailableError,
    PikaUnknownOutcomeError,
)

RUNNING = Job("job:1", "progress", {})
TRANSIENT = PikaUnavailableError("HTTP 500", status=500, error="E", details="D")
MISSING = PikaNotFoundError("HTTP 404", status=404)
FULL = PikaQueueFullError("full")
FAR = 1e9


def polling(interval: float = 30, deadline: float = FAR) -> PollState:
    return PollState("job:1", interval, deadline)


def limited(seconds: float | None = None) -> PikaRateLimitedError:
    return PikaRateLimitedError("HTTP 429", retry_after=seconds)


def random_find(dice: random.Random) -> Job | PikaError:
    seconds = dice.choice([None, 0, 1, dice.uniform(0, 1000), 1e300])
    return dice.choice(
        [RUNNING, Job("job:1", "strange", {}), Job("job:1", "", {}), TRANSIENT, MISSING, FULL, limited(seconds)]
    )


@pytest.mark.parametrize("seed", range(60))
def test_no_poll_ever_comes_sooner_than_10_s(seed: int) -> None:
    """Whatever is found, however short the interval, however near the deadline."""
    dice = random.Random(seed)
    now = dice.uniform(0, 2e9)
    waiting = polling(
        dice.choice([0, 0.1, 5, 9.99, 10, 30, 600, -5]), now + dice.choice([-5, 0, 0.5, 9, 40, 5000, 1e6])
    )
    for _ in range(200):
        outcome = waiting.after_poll(random_find(dice), now, dice.random())
        if outcome.error or outcome.timed_out:
            return
        assert outcome.after >= MIN_POLL_INTERVAL == 10
        now += outcome.after


@pytest.mark.parametrize("seed", range(30))
def test_a_wait_always_ends_soon_after_its_deadline(seed: int) -> None:
    dice = random.Random(seed)
    now = dice.uniform(0, 2e9)
    waiting = polling(dice.choice([10, 30, 600]), now + dice.uniform(0, 20_000))
    for _ in range(20_000):
        outcome = waiting.after_poll(random_find(dice), now, dice.random())
        if outcome.error or outcome.timed_out:
            assert now < waiting.deadline + MIN_POLL_INTERVAL
            return
        now += outcome.after
    pytest.fail("the wait did not end")


@pytest.mark.parametrize("status", ["created", "started", "progress"])
def test_a_running_job_is_polled_again_after_the_interval(status: str) -> None:
    outcome = polling(42).after_poll(Job("job:1", status, {}), 0)
    assert (outcome.after, outcome.job, outcome.error, outcome.timed_out) == (42, None, None, False)


@pytest.mark.parametrize("status", ["completed", "moderated", "failed", "cancelled"])
@pytest.mark.parametrize("now", [0, FAR + 1])
def test_a_job_that_has_ended_ends_the_wait_even_past_the_deadline(status: str, now: float) -> None:
    job = Job("job:1", status, {})
    outcome = polling().after_poll(job, now)
    assert (outcome.job, outcome.error, outcome.timed_out) == (job, None, False)


@pytest.mark.parametrize(
    ("status", "said"),
    [("upscaling", "is upscaling, a state this version does not know"), ("", "in no state the API names")],
)
def test_an_unknown_state_is_taken_for_running_and_told(status: str, said: str) -> None:
    outcome = polling().after_poll(Job("job:1", status, {}), 0)
    assert outcome.after == 30
    assert said in outcome.note


@pytest.mark.parametrize(
    "kind",
    [
        PikaRequestError,
        PikaAuthError,
        PikaPaymentError,
        PikaModeratedError,
        PikaUnknownOutcomeError,
        PikaJobFailedError,
        PikaError,
    ],
)
def test_what_will_not_pass_ends_the_wait_at_the_first_poll(kind: type[PikaError]) -> None:
    error = kind("said")
    assert polling().after_poll(error, 0).error is error


@pytest.mark.parametrize("interval", [10, 15, 30, 120, 300, 1000])
@pytest.mark.parametrize("jitter", [0, 0.5, 0.999])
@pytest.mark.parametrize("found", [TRANSIENT, FULL, limited(), limited(0)], ids=lambda error: type(error).__name__)
def test_a_transient_error_makes_the_next_poll_later_never_sooner(
    found: PikaError, jitter: float, interval: float
) -> None:
    waiting = polling(interval)
    waits = [waiting.after_poll(found, 0, jitter).after for _ in range(TRANSIENT_LIMIT - 1)]
    assert waits == sorted(waits)
    assert min(waits) >= interval
    assert max(waits) <= max(interval, 1.25 * MAX_BACKOFF)
    if interval <= 120:
        assert waits[0] > interval


def test_the_waits_after_transient_errors_are_spread() -> None:
    """Hundreds of tasks that met the same error must not come back in the same second."""
    assert len({polling().after_poll(TRANSIENT, 0, jitter / 10).after for jitter in range(10)}) == 10


@pytest.mark.parametrize("found", [TRANSIENT, FULL, limited(3)], ids=lambda error: type(error).__name__)
def test_a_run_of_transient_errors_ends_the_wait_at_the_stated_bound(found: PikaError) -> None:
    waiting = polling()
    outcomes = [waiting.after_poll(found, 0) for _ in range(TRANSIENT_LIMIT)]
    assert [outcome.error for outcome in outcomes[:-1]] == [None] * (TRANSIENT_LIMIT - 1)
    error = outcomes[-1].error
    assert type(error) is PikaUnavailableError
    assert (error.status, error.error, error.details, error.jobid) == (
        found.status,
        found.error,
        found.details,
        "job:1",
    )
    assert f"after {TRANSIENT_LIMIT} failed polls in a row; the job was left alone" in str(error)
    assert str(found) in str(error)


def test_one_good_poll_starts_the_count_of_transient_errors_over() -> None:
    waiting = polling()
    for _ in range(5):
        assert not any(waiting.after_poll(TRANSIENT, 0).error for _ in range(TRANSIENT_LIMIT - 1))
        assert waiting.after_poll(RUNNING, 0).after == 30


def test_transient_errors_remembered_from_an_earlier_leg_count() -> None:
    assert PollState("job:1", 30, FAR, transient_errors=TRANSIENT_LIMIT - 1).after_poll(TRANSIENT, 0).error


def test_a_jobid_that_never_existed_ends_the_wait_after_a_few_polls() -> None:
    waiting = polling()
    outcomes = [waiting.after_poll(MISSING, 0) for _ in range(NOT_FOUND_LIMIT)]
    assert [outcome.error for outcome in outcomes] == [None] * (NOT_FOUND_LIMIT - 1) + [MISSING]
    assert outcomes[0].after == 30


def test_a_fresh_job_that_shows_itself_late_is_waited_for() -> None:
    waiting = polling()
    for _ in range(NOT_FOUND_LIMIT - 1):
        waiting.after_poll(MISSING, 0)
    waiting.after_poll(RUNNING, 0)
    assert [waiting.after_poll(MISSING, 0).error for _ in range(NOT_FOUND_LIMIT - 1)] == [None] * (NOT_FOUND_LIMIT - 1)


def test_unknown_jobids_remembered_from_an_earlier_leg_count() -> None:
    assert PollState("job:1", 30, FAR, not_found=NOT_FOUND_LIMIT - 1).after_poll(MISSING, 0).error is MISSING


def test_a_run_of_failed_polls_ends_also_when_unknown_jobs_and_transient_errors_alternate() -> None:
    waiting = polling()
    found = [MISSING, TRANSIENT] * (TRANSIENT_LIMIT + NOT_FOUND_LIMIT)
    assert any(waiting.after_poll(error, 0).error for error in found)


@pytest.mark.parametrize("asked", [31, 75, 1000])
@pytest.mark.parametrize("jitter", [0, 0.999])
def test_the_pause_a_429_asks_for_is_waited(asked: float, jitter: float) -> None:
    assert polling(30).after_poll(limited(asked), 0, jitter).after >= asked


def test_a_pause_shorter_than_the_interval_makes_no_poll_sooner() -> None:
    assert polling(30).after_poll(limited(1), 0).after >= 30


@pytest.mark.parametrize(("left", "after"), [(29, 29), (10.5, 10.5), (9, 10), (0.1, 10), (31, 30)])
def test_the_last_poll_comes_at_the_deadline_but_never_too_soon(left: float, after: float) -> None:
    assert polling(30, deadline=1000).after_poll(RUNNING, 1000 - left).after == pytest.approx(after)


@pytest.mark.parametrize("found", [RUNNING, TRANSIENT, MISSING, limited(5)], ids=lambda found: type(found).__name__)
@pytest.mark.parametrize(("now", "timed_out"), [(999.9, False), (1000, True), (5000, True)])
def test_the_wait_times_out_at_its_deadline_whatever_the_poll_said(
    found: Job | PikaError, now: float, timed_out: bool
) -> None:
    outcome = polling(30, deadline=1000).after_poll(found, now)
    assert (outcome.timed_out, outcome.error) == (timed_out, None)


def test_the_words_of_a_timeout_tell_the_deadline_and_the_last_poll() -> None:
    waiting = polling(deadline=1_700_000_000)
    assert "it was never polled" in waiting.timeout_message()
    waiting.after_poll(RUNNING, 1_700_000_001)
    message = waiting.timeout_message()
    assert "Timed out: job:1 did not end by 2023-11-14 22:13:20 UTC" in message
    assert "the last poll: job:1 is progress" in message


@pytest.mark.parametrize(
    ("given", "floor", "raised"), [(10, 10, False), (30, 15, False), (9.9, 10, True), (0, 15, True), (-1, 10, True)]
)
def test_an_interval_is_raised_to_the_floor_with_a_warning(given: float, floor: float, raised: bool) -> None:
    interval, warning = interval_at_least("poll_interval", given, floor)
    assert interval == (floor if raised else given)
    assert (warning is not None) is raised
    if warning:
        assert f"{given:g} s" in warning
        assert f"{floor:g} s" in warning


@pytest.mark.parametrize(("given", "seconds"), [(90, 90), (1.5, 1.5), (timedelta(minutes=2), 120)])
def test_a_duration_is_seconds_or_a_timedelta(given: timedelta | float, seconds: float) -> None:
    assert seconds_of("timeout", given) == seconds


@pytest.mark.parametrize(("seconds", "words"), [(0.5, "0.5 s"), (90, "1 minute 30 seconds"), (86_400, "1 day")])
def test_a_duration_is_told_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_moment_is_told_in_utc() -> None:
    assert when(0) == "1970-01-01 00:00:00 UTC"


@pytest.mark.parametrize("value", [None, "3600", True, -1, float("nan"), float("inf")])
def test_a_duration_that_is_none_is_refused_when_the_dag_is_read(value: object) -> None:
    with pytest.raises(ValueError, match=r"^timeout must be a timedelta or a number of seconds, not"):
        seconds_of("timeout", value)


# What a waiting task's log is told


def test_a_line_is_news_if_it_says_something_else_and_the_last_is_a_minute_old() -> None:
    told = Told("10%")
    assert told.is_news("20%", 5), "the first one need not wait"
    told = Told("20%", 5)
    assert not told.is_news("20%", 500)
    assert not told.is_news("30%", 5 + LINE_INTERVAL - 1)
    assert told.is_news("30%", 5 + LINE_INTERVAL)


def test_a_thousand_lines_at_the_same_instant_are_spread_and_the_stale_left_out() -> None:
    lines = Lines()
    delays = [lines.delay(100.0) for _ in range(1000)]
    given = [delay for delay in delays if delay is not None]
    assert given[0] == 0
    assert min(later - earlier for earlier, later in pairwise(given)) >= 1 / LINES_PER_SECOND - 1e-6
    assert max(given) <= LINE_INTERVAL
    assert len(given) == pytest.approx(LINE_INTERVAL * LINES_PER_SECOND, abs=2)
    assert lines.delay(100.0 + LINE_INTERVAL + 1) == 0


def test_jobs_on_the_list_are_read_once_a_minute_while_few_wait() -> None:
    old, fresh = READ_INTERVAL, READ_INTERVAL - 1
    assert reads_beside_list([]) == 0
    assert reads_beside_list([fresh, fresh]) == 0
    assert reads_beside_list([old, fresh, old]) == 2
    assert reads_beside_list([old] * FEW_WAITERS) == FEW_WAITERS


def test_however_many_wait_a_list_brings_one_read() -> None:
    assert reads_beside_list([READ_INTERVAL] * (FEW_WAITERS + 1)) == 1
    assert reads_beside_list([9999.0] * 1000) == 1
    assert reads_beside_list([0.0] * 1000) == 0


@pytest.mark.parametrize(
    ("raw", "percent"),
    [
        ({}, None),
        ({"content": None}, None),
        ({"content": "waves (Waiting to start)"}, None),
        ({"content": "**waves** (33%)"}, 33),
        ({"content": "**waves** (33 %) - <@1>"}, 33),
        ({"content": "**waves** 7.5%"}, 7),
        ({"content": "**50% off** (33%)", "prompt": "50% off"}, 33),
        ({"content": "queued. (Prompt: 50% off Message: 99%)", "prompt": "50% off", "message": "99%"}, None),
        ({"content": "1000% more"}, None),
        ({"content": "120%"}, None),
        ({"content": ["33%"], "prompt": 5}, 33),
    ],
    ids=str,
)
def test_a_jobs_percentage_is_read_from_its_content_and_not_from_its_prompt(raw: dict[str, Any], percent: Any) -> None:
    assert percentage(Job("job:1", "progress", raw)) == percent


def test_a_poll_tells_the_percentage_and_who_told_of_an_end() -> None:
    state = PollState("job:1", 30, deadline=1000)
    assert str(state.after_poll(Job("job:1", "progress", {"content": "(33%)"}), 0)) == "job:1 is progress (33%)"
    ended = replace(state.after_poll(Job("job:1", "completed", {}), 0), told_after=0.94)
    assert str(ended) == "job:1 is completed, told by the service after 0.9 s"
