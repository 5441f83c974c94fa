"""The emulator's jobs, queue and counters, on a clock turned by hand."""

from __future__ import annotations

import re
from typing import Any

import pytest

from airflow_provider_pika.api.commands import BUTTON, ENCRYPT_TEXT
from airflow_provider_pika.emulator.faults import Traits
from airflow_provider_pika.emulator.jobs import Job, Submit
from airflow_provider_pika.emulator.links import Links
from airflow_provider_pika.emulator.refusals import Refusal
from airflow_provider_pika.emulator.settings import DEFAULT_CHANNEL, Pace, Settings
from airflow_provider_pika.emulator.state import State, mask


def asked(**account: Any) -> Submit:
    return Submit(ENCRYPT_TEXT, {"message": "HELLO", "prompt": "waves"}, **account)


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make_state(clock: Clock, pace: Pace | None = None, **settings: Any) -> State:
    return State(Settings(pace=pace or Pace(30), **settings), clock)


def submitted(state: State, what: Submit | None = None, **traits: Any) -> Job:
    return state.submit(what or asked(), Traits(**traits))


def test_a_job_by_seconds_is_started_then_in_progress_then_completed(clock: Clock) -> None:
    state = make_state(clock)
    job = submitted(state)
    assert state.read(job.jobid).status == "started"
    clock.now += 15
    assert state.read(job.jobid).status == "progress"
    clock.now += 15
    assert state.read(job.jobid).status == "completed"


def test_a_job_ends_when_its_time_comes_and_not_when_somebody_looks(clock: Clock) -> None:
    state = make_state(clock)
    job = submitted(state)
    clock.now += 500
    state.settle()
    assert job.ended == job.created + 30


def test_a_job_at_once_is_started_when_made_and_completed_at_the_first_look(clock: Clock) -> None:
    state = make_state(clock, Pace(0))
    job = submitted(state)
    assert job.status == "started"
    assert state.read(job.jobid).status == "completed"


def test_a_job_by_reads_ends_with_the_nth_read_however_long_it_takes(clock: Clock) -> None:
    state = make_state(clock, Pace(reads=3))
    job = submitted(state)
    clock.now += 10_000
    assert [state.read(job.jobid).status for _ in range(4)] == ["started", "progress", "completed", "completed"]


@pytest.mark.parametrize("status", ["failed", "moderated", "cancelled"])
def test_a_job_can_end_badly_with_a_reason(clock: Clock, status: str) -> None:
    state = make_state(clock, Pace(0))
    job = submitted(state, end_as=status, reason="because")
    assert state.read(job.jobid).status == status
    assert job.reason == "because"


def test_a_stuck_job_never_ends(clock: Clock) -> None:
    state = make_state(clock)
    job = submitted(state, stuck=True)
    clock.now += 1e6
    assert state.read(job.jobid).status == "progress"


def test_a_late_job_shows_itself_only_after_some_reads(clock: Clock) -> None:
    state = make_state(clock, Pace(reads=1))
    job = submitted(state, late_reads=2)
    for _ in range(2):
        with pytest.raises(Refusal, match="Unable to locate job"):
            state.read(job.jobid)
    assert state.read(job.jobid).status == "completed"


def test_the_list_shows_running_jobs_but_not_late_and_unlisted_ones(clock: Clock) -> None:
    state = make_state(clock)
    plain, late = submitted(state), submitted(state, late_listing=5)
    submitted(state, unlisted=True)
    assert state.listed() == [plain.jobid]
    clock.now += 5
    assert state.listed() == [plain.jobid, late.jobid]
    clock.now += 25
    assert state.listed() == []


def test_a_full_channel_refuses_with_the_jobs_in_the_way_and_has_room_again_later(clock: Clock) -> None:
    state = make_state(clock, channels={DEFAULT_CHANNEL: 2})
    jobs = [submitted(state).jobid for _ in range(2)]
    with pytest.raises(Refusal) as refused:
        submitted(state)
    assert refused.value.status == 429
    assert refused.value.body["executingJobs"] == jobs
    clock.now += 30
    submitted(state)
    assert len(state.jobs) == 3


def test_the_limit_counts_per_channel_and_the_requests_own_limit_comes_first(clock: Clock) -> None:
    state = make_state(clock, channels={"1": 1, "2": 5})
    for _ in range(6):
        submitted(state)
    with pytest.raises(Refusal):
        submitted(state)
    assert submitted(state, asked(channel="1", max_jobs=2)).max_jobs == 2
    assert state.told()["peak_running"] == {"1": 2, "2": 5}


def test_discord_and_channel_together_need_no_configured_account(clock: Clock) -> None:
    state = make_state(clock)
    job = submitted(state, asked(discord="somebody's own", channel="77"))
    assert (job.channel, job.discord, job.max_jobs) == ("77", "<som…secured…own>", 10)


@pytest.mark.parametrize(("channels", "channel"), [({"1": 1}, "2"), ({}, None)])
def test_a_submit_without_a_usable_account_is_a_400(
    clock: Clock, channels: dict[str, int], channel: str | None
) -> None:
    with pytest.raises(Refusal) as refused:
        submitted(make_state(clock, channels=channels), asked(channel=channel))
    assert refused.value.status == 400


def test_jobids_are_unique_within_one_millisecond_and_across_a_reset(clock: Clock) -> None:
    state = make_state(clock, channels={"5": 10})
    jobids = [submitted(state).jobid for _ in range(10)]
    state.reset()
    jobids.append(submitted(state).jobid)
    assert len(set(jobids)) == 11
    assert all(re.fullmatch(r"job:\d{17}-user:1000-channel:5-bot:pika", jobid) for jobid in jobids)


def pressed(state: State, jobid: str, **traits: Any) -> Job:
    return submitted(state, Submit(BUTTON, {"jobid": jobid, "button": "retry"}), **traits)


def test_retry_makes_another_take_of_a_completed_job_and_of_that_one_again(clock: Clock) -> None:
    state = make_state(clock, channels={"1": 5, "2": 5})
    first = submitted(state, asked(discord="somebody's own", channel="9"))
    clock.now += 30
    second = pressed(state, first.jobid)
    clock.now += 30
    third = pressed(state, second.jobid)
    for job in (second, third):
        assert (job.shows, job.channel, job.discord) == (first.shows, "9", first.discord)
    assert len({first.jobid, second.jobid, third.jobid}) == len({first.take, second.take, third.take}) == 3


def test_retry_needs_a_completed_job_that_is_there(clock: Clock) -> None:
    state = make_state(clock)
    running, failed = submitted(state), submitted(state, end_as="failed")
    refused = {}
    for jobid in (running.jobid, failed.jobid, "job:unknown"):
        with pytest.raises(Refusal) as caught:
            pressed(state, jobid)
        refused[jobid] = caught.value.status
        clock.now += 1
    assert refused == {running.jobid: 400, failed.jobid: 400, "job:unknown": 404}
    assert len(state.jobs) == 2


def test_retry_waits_for_room_on_its_parents_channel_only(clock: Clock) -> None:
    state = make_state(clock, channels={"1": 1, "2": 1})
    parent = submitted(state, asked(channel="1"))
    clock.now += 30
    running = submitted(state, asked(channel="1"))
    with pytest.raises(Refusal) as refused:
        pressed(state, parent.jobid)
    assert refused.value.body["executingJobs"] == [running.jobid]


def test_cancel_ends_a_running_job_and_leaves_an_ended_one(clock: Clock) -> None:
    state = make_state(clock)
    running, ended = submitted(state), submitted(state)
    state.end(ended, "completed")
    assert state.cancel(running.jobid).status == "cancelled"
    assert state.cancel(ended.jobid).status == "completed"
    with pytest.raises(Refusal):
        state.cancel("job:unknown")


def test_an_end_is_reported_once(clock: Clock) -> None:
    ended: list[Job] = []
    state = State(Settings(pace=Pace(1)), clock, ended.append)
    job = submitted(state)
    clock.now += 2
    state.settle()
    state.cancel(job.jobid)
    state.settle()
    assert ended == [job]


def test_pushed_time_ends_jobs_but_is_not_taken_for_a_polite_gap(clock: Clock) -> None:
    state = make_state(clock)
    job = submitted(state)
    state.note_poll(job.jobid)
    state.push_time(60)
    clock.now += 2
    state.note_poll(job.jobid)
    assert job.status == "completed"
    assert state.told()["polls"]["smallest_gap"] == 2


def test_the_smallest_gap_is_told_per_job_and_over_all(clock: Clock) -> None:
    state = make_state(clock)
    for jobid, pause in [("a", 0), ("b", 1), ("a", 11), ("b", 3), ("a", 30)]:
        clock.now += pause
        state.note_poll(jobid)
    polls = state.told()["polls"]
    assert polls["by_job"] == {"a": {"count": 3, "smallest_gap": 12}, "b": {"count": 2, "smallest_gap": 14}}
    assert (polls["smallest_gap"], polls["total"]) == (12, 5)


def test_a_job_can_be_put_into_any_state_by_hand(clock: Clock) -> None:
    state = make_state(clock, Pace(0))
    job = submitted(state, stuck=True)
    state.set_status(job, "warming_up", "nearly")
    assert (job.status, job.content, state.listed()) == ("warming_up", "nearly", [job.jobid])
    state.set_status(job, "moderated")
    assert job.reason
    assert state.listed() == []


def test_reset_goes_back_to_the_settings_of_the_start(clock: Clock) -> None:
    state = make_state(clock)
    submitted(state)
    state.settings = state.settings.changed({"max_jobs": 1, "at_once": True})
    state.reset()
    assert (state.settings, state.jobs, state.listed()) == (Settings(pace=Pace(30)), {}, [])


@pytest.mark.parametrize(
    "wish",
    [
        {"seconds": -1},
        {"seconds": "5"},
        {"reads": 0},
        {"max_jobs": 11},
        {"channels": ["1"]},
        {"at_once": False},
        {"colour": 1},
    ],
)
def test_nonsense_is_not_configured(wish: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wish))):
        Settings().changed(wish)


@pytest.mark.parametrize("secret", ["", "short", "123456789"])
def test_a_mask_shows_nothing_of_a_secret_too_short_to_hide(secret: str) -> None:
    assert mask(secret) == "<…secured…>"


def test_a_link_is_valid_until_it_expires_and_only_as_it_was_signed() -> None:
    links = Links()
    url = links.sign("/a/film.mp4", 1000, 2000)
    query = dict(part.split("=") for part in url.partition("?")[2].split("&"))
    assert set(query) == {"ex", "is", "hm"}
    assert int(query["ex"], 16) == 2000
    assert links.is_valid("/a/film.mp4", query, 1999)
    assert not links.is_valid("/a/film.mp4", query, 2000)
    assert not links.is_valid("/b/film.mp4", query, 1500)
    assert not links.is_valid("/a/film.mp4", query | {"ex": "ffffffff"}, 1500)
    assert not links.is_valid("/a/film.mp4", {}, 1500)
