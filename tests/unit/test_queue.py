"""The queue before a full channel: one waiter goes for each job in the way that is gone, first come, first served."""

from __future__ import annotations

import random
from collections.abc import Collection

import pytest

from airflow_provider_pika.api.polling import MIN_RESCHEDULE
from airflow_provider_pika.api.queue import (
    LIST_LAG,
    MAX_SUBMIT_WAIT,
    RELEASE_TIMEOUT,
    STALL_TIMEOUT,
    ChannelQueue,
    submit_wait,
)
from airflow_provider_pika.exceptions import PikaError, PikaQueueFullError, PikaRateLimitedError

FULL = PikaQueueFullError("full")
FAR = 1e9
TEN = [f"job:{n}" for n in range(10)]


def full(jobs: list[str] = TEN, at: float = 100.0) -> ChannelQueue:
    queue = ChannelQueue()
    queue.rejected(jobs, at=at)
    return queue


def polled(queue: ChannelQueue, running: Collection[str], *, waiting: int, now: float) -> int:
    """Take in a list where there is no other triggerer; return how many are released."""
    queue.after_poll(running, now=now)
    return queue.settle(queue.offered(waiting=waiting, now=now), waiting=waiting, now=now)


def ended(queue: ChannelQueue, jobid: str, *, waiting: int, now: float) -> int:
    """Do the same with a job that was read as ended."""
    queue.after_end(jobid, now=now)
    return queue.settle(queue.offered(waiting=waiting, now=now), waiting=waiting, now=now)


def test_nobody_goes_while_all_jobs_in_the_way_run() -> None:
    assert polled(full(), TEN, waiting=30, now=110) == 0


def test_one_goes_for_each_job_that_is_gone() -> None:
    assert polled(full(), TEN[3:], waiting=30, now=110) == 3


def test_no_more_go_than_wait() -> None:
    queue = full()
    assert polled(queue, TEN[5:], waiting=2, now=110) == 2
    # The slots that nobody took are kept for those who join later.
    assert polled(queue, TEN[5:], waiting=9, now=120) == 3


def test_jobs_of_other_channels_count_for_nothing() -> None:
    """The list spans channels: twenty foreign jobs neither fill this queue nor free it."""
    foreign = [f"foreign:{n}" for n in range(20)]
    queue = full()
    assert polled(queue, TEN + foreign, waiting=30, now=110) == 0
    assert polled(queue, TEN[1:] + foreign, waiting=30, now=120) == 1
    assert polled(queue, TEN[1:], waiting=30, now=130) == 0


def test_who_was_released_holds_the_slot_until_its_own_job_is_gone() -> None:
    queue = full()
    assert polled(queue, TEN[1:], waiting=30, now=110) == 1
    assert polled(queue, TEN[1:], waiting=29, now=120) == 0, "its job is not listed yet"
    assert polled(queue, [*TEN[1:], "job:new"], waiting=29, now=130) == 0
    assert polled(queue, TEN[1:], waiting=29, now=140) == 1


def test_a_slot_whose_taker_never_shows_up_is_offered_again() -> None:
    queue = full()
    assert polled(queue, TEN[1:], waiting=30, now=110) == 1
    assert polled(queue, TEN[1:], waiting=29, now=110 + RELEASE_TIMEOUT - 1) == 0
    assert polled(queue, TEN[1:], waiting=29, now=110 + RELEASE_TIMEOUT) == 1


def test_a_new_429_renews_the_list() -> None:
    """Who comes back from a release with a fresh list had found the channel full: older news is void."""
    queue = full()
    assert polled(queue, TEN[2:], waiting=30, now=110) == 2
    queue.rejected([*TEN[2:], "other:1", "other:2"], at=115, again=True)
    assert polled(queue, [*TEN[2:], "other:1", "other:2"], waiting=30, now=120) == 0
    assert polled(queue, [*TEN[2:], "other:1"], waiting=30, now=130) == 1


def test_older_news_than_the_newest_is_none() -> None:
    """After a triggerer's restart waiters rejoin in any order, each with the list of its own 429."""
    queue = full(TEN, at=200)
    queue.rejected(["long:gone"], at=100)
    assert polled(queue, TEN, waiting=30, now=210) == 0


def test_a_rate_limit_holds_everybody_for_as_long_as_it_asks() -> None:
    queue = full()
    queue.rejected([], at=105, not_before=160)
    assert polled(queue, TEN[5:], waiting=30, now=159) == 0
    assert polled(queue, TEN[5:], waiting=30, now=160) == 5


def test_where_only_a_rate_limit_was_met_one_goes_at_a_time() -> None:
    queue = ChannelQueue()
    queue.rejected([], at=100, not_before=110)
    assert [polled(queue, [], waiting=5, now=now) for now in (105, 110, 120, 130)] == [0, 1, 1, 1]


@pytest.mark.parametrize("seed", range(20))
def test_a_channel_of_ten_is_kept_full_and_never_overfilled(seed: int) -> None:
    """A simulated channel with jobs of random length: nobody released is rejected, and no slot stays empty long."""
    dice = random.Random(seed)
    ends = {job: 100 + dice.uniform(20, 90) for job in TEN}
    queue, waiting, now, idle = full(), 60, 100.0, 0.0
    due: list[float] = []
    while waiting or due:
        now += 10
        ends = {job: end for job, end in ends.items() if end > now}
        for at in [at for at in due if at <= now]:
            due.remove(at)
            assert len(ends) < 10, "released into a full channel"
            ends[f"new:{now}:{dice.random()}"] = now + dice.uniform(20, 90)
        go = polled(queue, ends, waiting=waiting, now=now)
        waiting -= go
        due += [now + dice.uniform(1, 9) for _ in range(go)]
        if waiting:
            idle += 10 - len(ends) - len(due)
        assert now < 10_000, "somebody was never served"
    assert idle == 0


def test_who_comes_back_from_a_rate_limit_gives_the_slot_back() -> None:
    queue = full(["job:0"])
    assert polled(queue, [], waiting=2, now=110) == 1
    queue.rejected([], at=112, not_before=150, again=True)
    assert polled(queue, [], waiting=2, now=120) == 0
    assert polled(queue, [], waiting=2, now=150) == 1


def test_a_queue_that_stalls_releases_somebody_to_find_out() -> None:
    """A list that names an ended job for ever must not hold up the queue for ever."""
    queue = full(["job:0"])
    assert [polled(queue, ["job:0"], waiting=3, now=110 + n * 10) for n in range(30)] == [0] * 30
    assert polled(queue, ["job:0"], waiting=3, now=110 + STALL_TIMEOUT) == 1
    assert polled(queue, ["job:0"], waiting=2, now=120 + STALL_TIMEOUT) == 0


# Where another triggerer releases into the same channel


def test_a_slot_another_triggerer_releases_for_is_followed_as_ones_own() -> None:
    """The job that comes is that waiter's, and when it is gone its slot may be given here."""
    queue = full()
    queue.after_poll(TEN[1:], now=110)
    assert queue.settle((), ["job:0"], waiting=30, now=110) == 0
    assert polled(queue, [*TEN[1:], "job:new"], waiting=30, now=120) == 0
    assert polled(queue, TEN[1:], waiting=30, now=130) == 1


def test_a_job_that_came_before_the_slot_was_known_to_be_taken_is_that_waiters() -> None:
    """The other one polled some seconds sooner: one list shows the old job gone and the new one there."""
    queue = full()
    queue.after_poll([*TEN[1:], "job:new"], now=110)
    assert queue.settle((), ["job:0"], waiting=30, now=110) == 0
    assert queue.blockers == {*TEN[1:], "job:new"}
    assert polled(queue, TEN[1:], waiting=30, now=120) == 1


def test_so_is_one_that_came_while_the_list_still_named_the_old_job() -> None:
    queue = full()
    queue.after_poll([*TEN, "job:new"], now=110)
    queue.after_poll([*TEN[1:], "job:new"], now=120)
    queue.settle((), ["job:0"], waiting=30, now=120)
    assert queue.blockers == {*TEN[1:], "job:new"}


@pytest.mark.parametrize("foreign", ["there long ago", "gone meanwhile"])
def test_a_job_of_another_channel_is_not_taken_for_it(foreign: str) -> None:
    queue = full()
    queue.after_poll([*TEN, "foreign:1"], now=110)
    later = 110 + LIST_LAG + 1 if foreign == "there long ago" else 120
    queue.after_poll([*TEN[1:], *(["foreign:1"] if foreign == "there long ago" else [])], now=later)
    queue.settle((), ["job:0"], waiting=30, now=later)
    assert queue.blockers == set(TEN[1:])
    assert len(queue.released) == 1


def test_a_slot_that_another_triggerer_lost_is_offered_again_under_another_name() -> None:
    queue = full()
    queue.after_poll(TEN[1:], now=110)
    queue.settle((), ["job:0"], waiting=30, now=110)
    queue.after_poll(TEN[1:], now=110 + RELEASE_TIMEOUT)
    assert queue.offered(waiting=30, now=110 + RELEASE_TIMEOUT) == ["job:0+"]


def test_what_came_while_the_triggerers_agreed_counts() -> None:
    """A 429 that names other jobs, a pause, or all who waited have left."""
    full_again, paused, left = full(), full(), full()
    for queue in (full_again, paused, left):
        queue.after_poll(TEN[1:], now=110)
        assert queue.offered(waiting=5, now=110) == ["job:0"]
    full_again.rejected([*TEN[1:], "other:1"], at=111)
    paused.rejected([], at=111, not_before=150)
    assert full_again.settle(["job:0"], waiting=5, now=112) == 0
    assert [paused.settle(["job:0"], waiting=5, now=now) for now in (112, 150)] == [0, 1]
    assert [left.settle(["job:0"], waiting=waiting, now=112) for waiting in (0, 1)] == [0, 1]


def test_a_queue_in_which_others_release_does_not_stall() -> None:
    queue = full()
    for step in range(60):
        now = 110 + step * 10
        blocker = min(queue.blockers)
        queue.after_poll(queue.blockers - {blocker} | {f"new:{step}"}, now=now)
        queue.settle((), [blocker], waiting=5, now=now)
        assert queue.offered(waiting=5, now=now) == []


# When to submit again after a 429


def limited(seconds: float | None = None) -> PikaRateLimitedError:
    return PikaRateLimitedError("HTTP 429", retry_after=seconds)


@pytest.mark.parametrize("jitter", [0, 0.25, 0.999])
def test_the_first_wait_for_a_full_queue_is_15_to_30_s(jitter: float) -> None:
    wait = submit_wait(FULL, rejections=0, left=FAR, jitter=jitter)
    assert wait == pytest.approx(15 * (1 + jitter))


@pytest.mark.parametrize("error", [FULL, limited(None)], ids=lambda error: type(error).__name__)
def test_who_is_rejections_often_waits_longer_up_to_a_bound(error: PikaError) -> None:
    waits = [submit_wait(error, rejections=often, left=FAR, jitter=0.5) for often in range(60)]
    assert waits == sorted(waits)
    assert waits[10] > 5 * waits[0]
    assert waits[-1] == 1.5 * MAX_SUBMIT_WAIT


def test_even_the_ten_thousandth_time_rejections_has_a_wait() -> None:
    """A queue_timeout may be weeks long."""
    assert submit_wait(FULL, rejections=10_000, left=FAR, jitter=0) == MAX_SUBMIT_WAIT


@pytest.mark.parametrize("asked", [0, 3.5, 15, 16, 600])
@pytest.mark.parametrize("jitter", [0, 0.999])
def test_the_pause_a_429_asks_a_submit_for_is_waited_in_full_with_jitter(asked: float, jitter: float) -> None:
    wait = submit_wait(limited(asked), rejections=0, left=FAR, jitter=jitter)
    assert wait is not None
    assert max(15, asked) <= wait <= max(15, asked) + 15


def random_turn(dice: random.Random) -> tuple[float, float | None]:
    left = dice.choice([-10, 0, 5, 14.9, 15, 20, dice.uniform(-100, 1000), 86_400])
    error = dice.choice([FULL, limited(), limited(dice.uniform(0, 50)), limited(max(left, 1)), limited(1e300)])
    return left, submit_wait(error, rejections=dice.randrange(100), left=left, jitter=dice.random())


@pytest.mark.parametrize("seed", range(5))
def test_a_submit_is_never_repeated_sooner_than_15_s(seed: int) -> None:
    dice = random.Random(seed)
    waits = [wait for _, wait in (random_turn(dice) for _ in range(500)) if wait is not None]
    assert min(waits) >= MIN_RESCHEDULE == 15


@pytest.mark.parametrize("seed", range(5))
def test_a_submit_is_never_repeated_past_the_queue_timeout(seed: int) -> None:
    dice = random.Random(seed)
    late = [(left, wait) for left, wait in (random_turn(dice) for _ in range(500)) if wait is not None and wait > left]
    assert not late, f"(left, wait): {late[:5]}"


@pytest.mark.parametrize("error", [FULL, limited(), limited(1), limited(100)], ids=str)
@pytest.mark.parametrize("left", [14.9, 1, 0, -5])
def test_a_submit_without_time_left_gives_up(error: PikaError, left: float) -> None:
    assert submit_wait(error, rejections=0, left=left, jitter=0) is None


def test_a_pause_longer_than_the_time_left_gives_up_at_once() -> None:
    assert submit_wait(limited(101), rejections=0, left=100, jitter=0) is None


def test_the_last_wait_for_a_full_queue_ends_at_the_queue_timeout() -> None:
    assert submit_wait(FULL, rejections=30, left=100, jitter=0.9) == 100


@pytest.mark.parametrize("jitter", [0, 0.999])
def test_a_full_queue_that_asks_for_a_pause_is_left_alone_for_as_long(jitter: float) -> None:
    error = PikaQueueFullError("full", executing_jobs=TEN, retry_after=120)
    wait = submit_wait(error, rejections=0, left=FAR, jitter=jitter)
    assert wait is not None
    assert wait >= 120


def test_a_pause_asked_for_with_a_full_queue_holds_that_channel_only() -> None:
    """``Retry-After`` on a queue-full 429: slots that get free meanwhile are kept."""
    paused, other = ChannelQueue(), full()
    paused.rejected(TEN, at=100, not_before=220)
    assert [polled(paused, TEN[4:], waiting=30, now=now) for now in (110, 219.9, 220)] == [0, 0, 4]
    assert polled(other, TEN[4:], waiting=30, now=110) == 4


def test_a_pause_is_never_shortened_by_a_later_answer() -> None:
    queue = ChannelQueue()
    queue.rejected(TEN, at=100, not_before=220)
    queue.rejected(TEN, at=130, not_before=145)
    assert polled(queue, [], waiting=1, now=150) == 0


def test_a_job_read_as_ended_frees_its_slot_though_the_list_still_names_it() -> None:
    queue = full()
    assert ended(queue, "job:0", waiting=3, now=110) == 1
    assert ended(queue, "job:0", waiting=2, now=111) == 0
    assert polled(queue, TEN, waiting=2, now=120) == 0, "the late list neither frees the slot again nor fills it"
    assert polled(queue, TEN[1:], waiting=2, now=130) == 0


def test_a_job_of_another_channel_frees_nothing_by_its_end() -> None:
    assert ended(full(), "foreign:1", waiting=3, now=110) == 0


def test_a_slot_freed_by_an_end_during_a_pause_is_kept() -> None:
    queue = full()
    queue.rejected([], at=105, not_before=160)
    assert ended(queue, "job:0", waiting=3, now=110) == 0
    assert polled(queue, TEN, waiting=3, now=161) == 1


@pytest.mark.parametrize(
    ("number", "word"),
    [
        (1, "1st"),
        (2, "2nd"),
        (3, "3rd"),
        (4, "4th"),
        (11, "11th"),
        (12, "12th"),
        (13, "13th"),
        (21, "21st"),
        (112, "112th"),
    ],
)
def test_a_place_in_line_is_worded(number: int, word: str) -> None:
    assert full().place(number, "123") == f"{word} in line for channel 123 among those in this triggerer, 10 jobs run"
    assert (
        full(["job:0"]).place(number, "") == f"{word} in line for any channel among those in this triggerer, 1 job runs"
    )
