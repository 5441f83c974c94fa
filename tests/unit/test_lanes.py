"""The line before a full channel: one waiter goes for each job in the way that is gone, first come, first served."""

from __future__ import annotations

import random

import pytest

from airflow_provider_pika.api.lanes import PATIENCE, STANDSTILL, Lane

TEN = [f"job:{n}" for n in range(10)]


def full(jobs: list[str] = TEN, at: float = 100.0) -> Lane:
    lane = Lane()
    lane.turned_away(jobs, at=at)
    return lane


def test_nobody_goes_while_all_jobs_in_the_way_run() -> None:
    assert full().look(TEN, waiting=30, now=110) == 0


def test_one_goes_for_each_job_that_is_gone() -> None:
    assert full().look(TEN[3:], waiting=30, now=110) == 3


def test_no_more_go_than_wait() -> None:
    lane = full()
    assert lane.look(TEN[5:], waiting=2, now=110) == 2
    # The slots that nobody took are kept for those who join later.
    assert lane.look(TEN[5:], waiting=9, now=120) == 3


def test_jobs_of_other_channels_count_for_nothing() -> None:
    """The list spans channels: twenty foreign jobs neither fill this lane nor free it."""
    foreign = [f"foreign:{n}" for n in range(20)]
    lane = full()
    assert lane.look(TEN + foreign, waiting=30, now=110) == 0
    assert lane.look(TEN[1:] + foreign, waiting=30, now=120) == 1
    assert lane.look(TEN[1:], waiting=30, now=130) == 0


def test_who_was_let_go_holds_the_slot_until_its_own_job_is_gone() -> None:
    lane = full()
    assert lane.look(TEN[1:], waiting=30, now=110) == 1
    assert lane.look(TEN[1:], waiting=29, now=120) == 0, "its job is not listed yet"
    assert lane.look([*TEN[1:], "job:new"], waiting=29, now=130) == 0
    assert lane.look(TEN[1:], waiting=29, now=140) == 1


def test_a_slot_whose_taker_never_shows_up_is_offered_again() -> None:
    lane = full()
    assert lane.look(TEN[1:], waiting=30, now=110) == 1
    assert lane.look(TEN[1:], waiting=29, now=110 + PATIENCE - 1) == 0
    assert lane.look(TEN[1:], waiting=29, now=110 + PATIENCE) == 1


def test_a_new_429_renews_the_list() -> None:
    """Who comes back from its turn with a fresh list had found the channel full: older news is void."""
    lane = full()
    assert lane.look(TEN[2:], waiting=30, now=110) == 2
    lane.turned_away([*TEN[2:], "other:1", "other:2"], at=115, again=True)
    assert lane.look([*TEN[2:], "other:1", "other:2"], waiting=30, now=120) == 0
    assert lane.look([*TEN[2:], "other:1"], waiting=30, now=130) == 1


def test_older_news_than_the_newest_is_none() -> None:
    """After a triggerer's restart waiters rejoin in any order, each with the list of its own 429."""
    lane = full(TEN, at=200)
    lane.turned_away(["long:gone"], at=100)
    assert lane.look(TEN, waiting=30, now=210) == 0


def test_a_rate_limit_holds_everybody_for_as_long_as_it_asks() -> None:
    lane = full()
    lane.turned_away([], at=105, hold_until=160)
    assert lane.look(TEN[5:], waiting=30, now=159) == 0
    assert lane.look(TEN[5:], waiting=30, now=160) == 5


def test_where_only_a_rate_limit_was_met_one_goes_at_a_time() -> None:
    lane = Lane()
    lane.turned_away([], at=100, hold_until=110)
    assert [lane.look([], waiting=5, now=now) for now in (105, 110, 120, 130)] == [0, 1, 1, 1]


@pytest.mark.parametrize("seed", range(20))
def test_a_channel_of_ten_is_kept_full_and_never_overfilled(seed: int) -> None:
    """A simulated channel with jobs of random length: nobody let go is turned away, and no slot stays empty long."""
    dice = random.Random(seed)
    ends = {job: 100 + dice.uniform(20, 90) for job in TEN}
    lane, waiting, now, idle = full(), 60, 100.0, 0.0
    due: list[float] = []
    while waiting or due:
        now += 10
        ends = {job: end for job, end in ends.items() if end > now}
        for at in [at for at in due if at <= now]:
            due.remove(at)
            assert len(ends) < 10, "let go into a full channel"
            ends[f"new:{now}:{dice.random()}"] = now + dice.uniform(20, 90)
        go = lane.look(ends, waiting=waiting, now=now)
        waiting -= go
        due += [now + dice.uniform(1, 9) for _ in range(go)]
        if waiting:
            idle += 10 - len(ends) - len(due)
        assert now < 10_000, "somebody was never served"
    assert idle == 0


def test_who_comes_back_from_a_rate_limit_gives_the_slot_back() -> None:
    lane = full(["job:0"])
    assert lane.look([], waiting=2, now=110) == 1
    lane.turned_away([], at=112, hold_until=150, again=True)
    assert lane.look([], waiting=2, now=120) == 0
    assert lane.look([], waiting=2, now=150) == 1


def test_a_line_that_stands_still_sends_somebody_to_find_out() -> None:
    """A list that names an ended job for ever must not hold up the line for ever."""
    lane = full(["job:0"])
    assert [lane.look(["job:0"], waiting=3, now=110 + n * 10) for n in range(30)] == [0] * 30
    assert lane.look(["job:0"], waiting=3, now=110 + STANDSTILL) == 1
    assert lane.look(["job:0"], waiting=2, now=120 + STANDSTILL) == 0
