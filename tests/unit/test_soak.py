"""The soak draws the same weather from the same seed, and its judge sees a second payment and a lost job."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest

from airflow_provider_pika.emulator.faults import Fault
from airflow_provider_pika.emulator.markers import read_markers
from dev.soak.figures import Figures
from dev.soak.judge import UNKNOWN, Film, Verdict, film_of, judge
from dev.soak.weather import LATE, LISTED, READS, SECONDS, SPOILT, SUBMITS, film

# As the harness shows what Airflow logged: an exception with its causes, set in below its line.
_LOG = f"--- attempt=2.log\nTask failed\n    AirflowFailException: no\n    {UNKNOWN}: who knows\nThe end"


def _film(state="success", jobids=("job:1",), *, log="", kept="job:1", tries=2, wait=None):
    return Film(name="f", state=state, tries=tries, jobids=list(jobids), log=log, kept=kept, wait=wait)


def _verdict(film):
    verdict = Verdict()
    verdict.add(film)
    return verdict


def test_each_job_is_listed_late_but_long_enough_to_be_found():
    drawn = [film(1, number) for number in range(500)]
    assert {one.seconds for one in drawn} <= set(range(SECONDS[0], SECONDS[1] + 1))
    assert {one.late for one in drawn} == set(range(LATE[0], LATE[1] + 1))
    assert all(one.seconds - one.late >= LISTED for one in drawn)


def test_a_film_depends_on_seed_and_number_alone():
    assert film(1, 7) == film(1, 7)
    assert {film(1, number) for number in range(20)} != {film(2, number) for number in range(20)}


def test_the_emulator_takes_what_the_weather_scripts():
    traits, _ = read_markers(film(1, 1).markers)
    assert (traits.pace.seconds, traits.late_listing) == (film(1, 1).seconds, film(1, 1).late)
    wishes = [("submit", wish) for _, wish in SUBMITS] + [(call, wish) for call in SPOILT for _, wish in READS]
    for call, wish in wishes:
        assert Fault.from_json({"on": call, **wish}).kind == wish["kind"]


def test_the_markers_are_no_part_of_the_films_name():
    assert film_of({"prompt": f"wave_1 3 {film(1, 1).markers}"}) == "wave_1 3"


def test_two_jobs_for_one_film_are_one_too_many_whatever_the_task_says():
    log = f"--- attempt=2.log\nTask failed\n    {UNKNOWN}: who knows"
    for one in (
        _film(jobids=("job:1", "job:2"), kept="job:1 job:2"),
        _film("failed", ("job:1", "job:2"), log=log),
    ):
        assert _verdict(one).excess == ["f: job:1, job:2"]
        assert _verdict(one).broken


def test_a_job_nobody_can_find_is_lost():
    assert _verdict(_film(kept="job:2")).lost == ["f: job:1"]
    assert _verdict(_film()).lost == []


@pytest.mark.parametrize("wait", ["failed", "upstream_failed", "none"])
def test_a_paid_film_whose_wait_did_not_succeed_is_strange(wait):
    """The soak looked at submits alone: a wait that failed for good was no failure."""
    assert _verdict(_film(wait=wait)).strange == [f"f: its wait ended {wait}"]
    assert _verdict(_film(wait="success")).strange == []


def test_a_success_without_a_job_is_strange():
    assert _verdict(_film(jobids=())).strange == ["f succeeded without a job"]


@pytest.mark.parametrize(("state", "lost"), [("success", ["d r 0: job:1"]), ("failed", [])])
def test_a_success_hands_its_job_on_and_does_not_only_log_it(state, lost):
    rows = {"xcom": [{"value": '"job:2"'}], "task_state_store": [{"value": "job:1"}]}
    runs = SimpleNamespace(log=lambda *where: "job:1")
    db = SimpleNamespace(
        sql=lambda query, where: rows[query.split()[3]],
        tasks=lambda dag_id, run_id: [
            {"dag_id": "d", "run_id": "r", "task_id": "film.submit", "map_index": 0, "state": state, "try_number": 1}
        ],
    )
    counters = {"jobs": [{"jobid": "job:1", "prompt": "r 0"}], "cancels": {}}
    assert judge(SimpleNamespace(runs=runs, db=db), counters, {"r": "d"}, left=[]).lost == lost


@pytest.mark.parametrize(("jobids", "said"), [((), "no job"), (("job:1",), "job:1")])
def test_a_task_that_says_it_cannot_know_has_lost_nothing(jobids, said):
    verdict = _verdict(_film("failed", jobids, log=_LOG, kept=""))
    assert verdict.unknown == [f"f: {said} was made"]
    assert not verdict.broken
    assert not verdict.strange


def test_what_an_earlier_try_could_not_know_is_no_excuse():
    log = f"--- attempt=1.log\n{UNKNOWN}\n--- attempt=2.log\nTask failed\n    ValueError: no\nThe end"
    verdict = _verdict(_film("failed", log=log, kept=""))
    assert verdict.lost
    assert not verdict.unknown
    assert verdict.strange == ["f ended failed, try 2: ValueError: no"]


@pytest.mark.parametrize(
    "log",
    [
        f"--- attempt=2.log\nwarning: {UNKNOWN}\nTask failed\n    ValueError: no",
        f"--- attempt=2.log\nOnce\n    {UNKNOWN}: who knows\nTask failed\n    ValueError: no\nThe end",
        f"--- attempt=2.log\nTask failed\n    ValueError: not a {UNKNOWN}",
    ],
)
def test_only_what_ended_the_last_try_excuses_a_film(log):
    verdict = _verdict(_film("failed", log=log, kept="job:1"))
    assert not verdict.unknown
    assert "ValueError: no" in verdict.strange[0]


@pytest.mark.parametrize(
    ("films", "ended", "strange"),
    [(12, True, []), (0, True, ["wave_1 made no films"]), (12, False, ["wave_1 did not end"])],
)
def test_a_run_that_made_nothing_or_did_not_end_is_strange(films, ended, strange):
    verdict = Verdict()
    verdict.add_run("wave_1", films=films, ended=ended)
    assert verdict.strange == strange


def test_of_a_piece_that_is_broken_off_what_broke_a_rule_counts():
    """An excess job must not be forgotten because the fleet fell over after it."""
    jobs = [{"prompt": f"wave_1 {film} [emulator:seconds=30]"} for film in (0, 1, 1)]
    figures = Figures(10, 5, pieces=1)
    figures.add(Figures.broken({"jobs": jobs, "cancels": {"job:1": 1}}, wanted=10))
    assert (figures.asked, figures.pieces, figures.broken_off, figures.cancelled) == (5, 1, 1, 1)
    assert figures.excess == ["wave_1 1, broken off: 2 jobs"]
    assert not figures.good
    assert "5 of 10; 1 broken off" in figures.table()
    assert Figures.broken({"jobs": jobs[:2], "cancels": {}}, wanted=10).good


def test_the_figures_of_a_long_soak_are_kept_between_its_pieces(tmp_path):
    kept = tmp_path / "state" / "seed-1.json"
    for asked in (10, 25):
        figures = Figures.read(kept, wanted=1000)
        piece = Figures(25, asked, pieces=1, kills=Counter(task=2), restarts=Counter(Redis=1), lost=["f: job:1"])
        piece.unknown = [*_verdict(_film("failed", (), log=_LOG)).unknown, *_verdict(_film("failed", log=_LOG)).unknown]
        figures.add(piece)
        figures.keep(kept)
    figures = Figures.read(kept, wanted=1000)
    assert (figures.asked, figures.pieces, figures.kills, figures.lost) == (35, 2, {"task": 4}, ["f: job:1"] * 2)
    assert not figures.good
    for row in (
        "35 of 1000, in 2 pieces",
        "| restarted | 2 Redis |",
        "| **lost jobids** | **2** |",
        "| 4, 2 of them without a job |",
    ):
        assert row in figures.table()
