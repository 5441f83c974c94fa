"""When to look again, when to submit again, when to give up."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest

from airflow_provider_pika.api.job import Job
from airflow_provider_pika.api.pacing import (
    FAULT_LIMIT,
    LOOK_GAP,
    MISS_LIMIT,
    RESCHEDULE_GAP,
    SLOWEST_LOOK,
    SLOWEST_SUBMIT,
    Watch,
    duration,
    interval_at_least,
    seconds_of,
    submit_wait,
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
FAULT = PikaUnavailableError("HTTP 500", status=500, error="E", details="D")
MISSING = PikaNotFoundError("HTTP 404", status=404)
FULL = PikaQueueFullError("full")
FAR = 1e9


def watch(interval: float = 30, deadline: float = FAR) -> Watch:
    return Watch("job:1", interval, deadline)


def limited(seconds: float | None = None) -> PikaRateLimitedError:
    return PikaRateLimitedError("HTTP 429", retry_after=seconds)


def random_find(dice: random.Random) -> Job | PikaError:
    seconds = dice.choice([None, 0, 1, dice.uniform(0, 1000), 1e300])
    return dice.choice(
        [RUNNING, Job("job:1", "strange", {}), Job("job:1", "", {}), FAULT, MISSING, FULL, limited(seconds)]
    )


@pytest.mark.parametrize("seed", range(60))
def test_no_look_ever_comes_sooner_than_10_s(seed: int) -> None:
    """Whatever is found, however short the interval, however near the deadline."""
    dice = random.Random(seed)
    now = dice.uniform(0, 2e9)
    waiting = watch(dice.choice([0, 0.1, 5, 9.99, 10, 30, 600, -5]), now + dice.choice([-5, 0, 0.5, 9, 40, 5000, 1e6]))
    for _ in range(200):
        verdict = waiting.judge(random_find(dice), now, dice.random())
        if verdict.error or verdict.timed_out:
            return
        assert verdict.after >= LOOK_GAP == 10
        now += verdict.after


@pytest.mark.parametrize("seed", range(30))
def test_a_wait_always_ends_soon_after_its_deadline(seed: int) -> None:
    dice = random.Random(seed)
    now = dice.uniform(0, 2e9)
    waiting = watch(dice.choice([10, 30, 600]), now + dice.uniform(0, 20_000))
    for _ in range(20_000):
        verdict = waiting.judge(random_find(dice), now, dice.random())
        if verdict.error or verdict.timed_out:
            assert now < waiting.deadline + LOOK_GAP
            return
        now += verdict.after
    pytest.fail("the wait did not end")


@pytest.mark.parametrize("status", ["created", "started", "progress"])
def test_a_running_job_is_looked_at_again_after_the_interval(status: str) -> None:
    verdict = watch(42).judge(Job("job:1", status, {}), 0)
    assert (verdict.after, verdict.job, verdict.error, verdict.timed_out) == (42, None, None, False)


@pytest.mark.parametrize("status", ["completed", "moderated", "failed", "cancelled"])
@pytest.mark.parametrize("now", [0, FAR + 1])
def test_a_job_that_has_ended_ends_the_wait_even_past_the_deadline(status: str, now: float) -> None:
    job = Job("job:1", status, {})
    verdict = watch().judge(job, now)
    assert (verdict.job, verdict.error, verdict.timed_out) == (job, None, False)


@pytest.mark.parametrize(
    ("status", "said"),
    [("upscaling", "is upscaling, a state this version does not know"), ("", "in no state the API names")],
)
def test_an_unknown_state_is_taken_for_running_and_told(status: str, said: str) -> None:
    verdict = watch().judge(Job("job:1", status, {}), 0)
    assert verdict.after == 30
    assert said in verdict.note


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
def test_what_will_not_pass_ends_the_wait_at_the_first_look(kind: type[PikaError]) -> None:
    error = kind("said")
    assert watch().judge(error, 0).error is error


@pytest.mark.parametrize("interval", [10, 15, 30, 120, 300, 1000])
@pytest.mark.parametrize("spread", [0, 0.5, 0.999])
@pytest.mark.parametrize("found", [FAULT, FULL, limited(), limited(0)], ids=lambda error: type(error).__name__)
def test_a_fault_makes_the_next_look_later_never_sooner(found: PikaError, spread: float, interval: float) -> None:
    waiting = watch(interval)
    waits = [waiting.judge(found, 0, spread).after for _ in range(FAULT_LIMIT - 1)]
    assert waits == sorted(waits)
    assert min(waits) >= interval
    assert max(waits) <= max(interval, 1.25 * SLOWEST_LOOK)
    if interval <= 120:
        assert waits[0] > interval


def test_the_waits_after_faults_are_spread() -> None:
    """Hundreds of tasks that met the same fault must not come back in the same second."""
    assert len({watch().judge(FAULT, 0, spread / 10).after for spread in range(10)}) == 10


@pytest.mark.parametrize("found", [FAULT, FULL, limited(3)], ids=lambda error: type(error).__name__)
def test_a_run_of_faults_ends_the_wait_at_the_stated_bound(found: PikaError) -> None:
    waiting = watch()
    verdicts = [waiting.judge(found, 0) for _ in range(FAULT_LIMIT)]
    assert [verdict.error for verdict in verdicts[:-1]] == [None] * (FAULT_LIMIT - 1)
    error = verdicts[-1].error
    assert type(error) is PikaUnavailableError
    assert (error.status, error.error, error.details, error.jobid) == (
        found.status,
        found.error,
        found.details,
        "job:1",
    )
    assert f"after {FAULT_LIMIT} failed looks in a row; the job was left alone" in str(error)
    assert str(found) in str(error)


def test_one_good_look_starts_the_count_of_faults_over() -> None:
    waiting = watch()
    for _ in range(5):
        assert not any(waiting.judge(FAULT, 0).error for _ in range(FAULT_LIMIT - 1))
        assert waiting.judge(RUNNING, 0).after == 30


def test_faults_remembered_from_an_earlier_leg_count() -> None:
    assert Watch("job:1", 30, FAR, faults=FAULT_LIMIT - 1).judge(FAULT, 0).error


def test_a_jobid_that_never_existed_ends_the_wait_after_a_few_looks() -> None:
    waiting = watch()
    verdicts = [waiting.judge(MISSING, 0) for _ in range(MISS_LIMIT)]
    assert [verdict.error for verdict in verdicts] == [None] * (MISS_LIMIT - 1) + [MISSING]
    assert verdicts[0].after == 30


def test_a_fresh_job_that_shows_itself_late_is_waited_for() -> None:
    waiting = watch()
    for _ in range(MISS_LIMIT - 1):
        waiting.judge(MISSING, 0)
    waiting.judge(RUNNING, 0)
    assert [waiting.judge(MISSING, 0).error for _ in range(MISS_LIMIT - 1)] == [None] * (MISS_LIMIT - 1)


def test_misses_remembered_from_an_earlier_leg_count() -> None:
    assert Watch("job:1", 30, FAR, misses=MISS_LIMIT - 1).judge(MISSING, 0).error is MISSING


def test_a_run_of_failed_looks_ends_also_when_misses_and_faults_alternate() -> None:
    waiting = watch()
    found = [MISSING, FAULT] * (FAULT_LIMIT + MISS_LIMIT)
    assert any(waiting.judge(error, 0).error for error in found)


@pytest.mark.parametrize("asked", [31, 75, 1000])
@pytest.mark.parametrize("spread", [0, 0.999])
def test_the_pause_a_429_asks_for_is_waited(asked: float, spread: float) -> None:
    assert watch(30).judge(limited(asked), 0, spread).after >= asked


def test_a_pause_shorter_than_the_interval_makes_no_look_sooner() -> None:
    assert watch(30).judge(limited(1), 0).after >= 30


@pytest.mark.parametrize(("left", "after"), [(29, 29), (10.5, 10.5), (9, 10), (0.1, 10), (31, 30)])
def test_the_last_look_comes_at_the_deadline_but_never_too_soon(left: float, after: float) -> None:
    assert watch(30, deadline=1000).judge(RUNNING, 1000 - left).after == pytest.approx(after)


@pytest.mark.parametrize("found", [RUNNING, FAULT, MISSING, limited(5)], ids=lambda found: type(found).__name__)
@pytest.mark.parametrize(("now", "timed_out"), [(999.9, False), (1000, True), (5000, True)])
def test_the_wait_times_out_at_its_deadline_whatever_the_look_said(
    found: Job | PikaError, now: float, timed_out: bool
) -> None:
    verdict = watch(30, deadline=1000).judge(found, now)
    assert (verdict.timed_out, verdict.error) == (timed_out, None)


def test_the_words_of_a_timeout_tell_the_deadline_and_the_last_look() -> None:
    waiting = watch(deadline=1_700_000_000)
    assert "it was never looked at" in waiting.timeout_message()
    waiting.judge(RUNNING, 1_700_000_001)
    message = waiting.timeout_message()
    assert "job:1 did not end by 2023-11-14 22:13:20 UTC" in message
    assert "the last look: job job:1 is progress" in message


@pytest.mark.parametrize("spread", [0, 0.25, 0.999])
def test_the_first_wait_for_a_full_queue_is_15_to_30_s(spread: float) -> None:
    wait = submit_wait(FULL, turned_away=0, left=FAR, spread=spread)
    assert wait == pytest.approx(15 * (1 + spread))


@pytest.mark.parametrize("error", [FULL, limited(None)], ids=lambda error: type(error).__name__)
def test_who_is_turned_away_often_waits_longer_up_to_a_bound(error: PikaError) -> None:
    waits = [submit_wait(error, turned_away=often, left=FAR, spread=0.5) for often in range(60)]
    assert waits == sorted(waits)
    assert waits[10] > 5 * waits[0]
    assert waits[-1] == 1.5 * SLOWEST_SUBMIT


def test_even_the_ten_thousandth_time_turned_away_has_a_wait() -> None:
    """A queue_timeout may be weeks long."""
    assert submit_wait(FULL, turned_away=10_000, left=FAR, spread=0) == SLOWEST_SUBMIT


@pytest.mark.parametrize("asked", [0, 3.5, 15, 16, 600])
@pytest.mark.parametrize("spread", [0, 0.999])
def test_the_pause_a_429_asks_a_submit_for_is_waited_in_full_with_jitter(asked: float, spread: float) -> None:
    wait = submit_wait(limited(asked), turned_away=0, left=FAR, spread=spread)
    assert wait is not None
    assert max(15, asked) <= wait <= max(15, asked) + 15


def random_turn(dice: random.Random) -> tuple[float, float | None]:
    left = dice.choice([-10, 0, 5, 14.9, 15, 20, dice.uniform(-100, 1000), 86_400])
    error = dice.choice([FULL, limited(), limited(dice.uniform(0, 50)), limited(max(left, 1)), limited(1e300)])
    return left, submit_wait(error, turned_away=dice.randrange(100), left=left, spread=dice.random())


@pytest.mark.parametrize("seed", range(5))
def test_a_submit_is_never_repeated_sooner_than_15_s(seed: int) -> None:
    dice = random.Random(seed)
    waits = [wait for _, wait in (random_turn(dice) for _ in range(500)) if wait is not None]
    assert min(waits) >= RESCHEDULE_GAP == 15


@pytest.mark.parametrize("seed", range(5))
def test_a_submit_is_never_repeated_past_the_queue_timeout(seed: int) -> None:
    dice = random.Random(seed)
    late = [(left, wait) for left, wait in (random_turn(dice) for _ in range(500)) if wait is not None and wait > left]
    assert not late, f"(left, wait): {late[:5]}"


@pytest.mark.parametrize("error", [FULL, limited(), limited(1), limited(100)], ids=str)
@pytest.mark.parametrize("left", [14.9, 1, 0, -5])
def test_a_submit_without_time_left_gives_up(error: PikaError, left: float) -> None:
    assert submit_wait(error, turned_away=0, left=left, spread=0) is None


def test_a_pause_longer_than_the_time_left_gives_up_at_once() -> None:
    assert submit_wait(limited(101), turned_away=0, left=100, spread=0) is None


def test_the_last_wait_for_a_full_queue_ends_at_the_queue_timeout() -> None:
    assert submit_wait(FULL, turned_away=30, left=100, spread=0.9) == 100


@pytest.mark.parametrize(
    ("given", "floor", "raised"), [(10, 10, False), (30, 15, False), (9.9, 10, True), (0, 15, True), (-1, 10, True)]
)
def test_an_interval_is_raised_to_the_floor_with_a_warning(given: float, floor: float, raised: bool) -> None:
    interval, warning = interval_at_least(given, floor)
    assert interval == (floor if raised else given)
    assert (warning is not None) is raised
    if warning:
        assert f"{given:g} s" in warning
        assert f"{floor:g} s" in warning


@pytest.mark.parametrize(("given", "seconds"), [(90, 90), (1.5, 1.5), (timedelta(minutes=2), 120)])
def test_a_duration_is_seconds_or_a_timedelta(given: timedelta | float, seconds: float) -> None:
    assert seconds_of(given) == seconds


@pytest.mark.parametrize(("seconds", "words"), [(0.5, "0.5 s"), (90, "1 minute 30 seconds"), (86_400, "1 day")])
def test_a_duration_is_told_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_moment_is_told_in_utc() -> None:
    assert when(0) == "1970-01-01 00:00:00 UTC"


@pytest.mark.parametrize("value", [None, "3600", True, -1, float("nan"), float("inf")])
def test_a_duration_that_is_none_is_refused_when_the_dag_is_read(value: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        seconds_of(value)
