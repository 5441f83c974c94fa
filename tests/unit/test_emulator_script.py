"""Scripting faults: what is accepted, in which order it strikes, and the markers in a prompt."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_pika.emulator import faults
from airflow_provider_pika.emulator.faults import Fault, FaultScript, Traits
from airflow_provider_pika.emulator.markers import read_markers
from airflow_provider_pika.emulator.settings import Pace


def script(*wishes: dict[str, Any]) -> FaultScript:
    made = FaultScript()
    for wish in wishes:
        made.add(Fault.from_json(wish))
    return made


def struck(made: FaultScript, on: str, jobid: str | None = None) -> str | None:
    fault = made.strike(on, jobid)
    return fault.kind if fault else None


def test_a_fault_strikes_as_often_as_asked_and_only_its_call() -> None:
    made = script({"on": "submit", "kind": "queue_full", "times": 2})
    assert struck(made, "job") is None
    assert [struck(made, "submit") for _ in range(3)] == ["queue_full", "queue_full", None]


def test_a_fault_lets_the_first_calls_pass() -> None:
    made = script({"on": "list", "kind": "html", "after": 2})
    assert [struck(made, "list") for _ in range(4)] == [None, None, "html", None]


def test_a_fault_with_a_share_strikes_evenly_and_counts_only_its_strikes() -> None:
    made = script({"on": "callback", "kind": "lost", "times": 2, "share": 0.25})
    assert [struck(made, "callback") for _ in range(10)].count("lost") == 2
    assert made.pending() == []


def test_a_fault_with_a_jobid_strikes_only_that_job() -> None:
    made = script({"on": "job", "kind": "not_found", "jobid": "a"})
    assert [struck(made, "job", "b"), struck(made, "job", "a"), struck(made, "job", "a")] == [None, "not_found", None]


def test_faults_strike_one_after_the_other() -> None:
    made = script({"on": "job", "kind": "html"}, {"on": "job", "kind": "cut"})
    assert [struck(made, "job") for _ in range(3)] == ["html", "cut", None]


def test_what_is_about_the_job_goes_together_with_what_strikes_its_submit() -> None:
    made = script({"on": "submit", "kind": "drop_after"}, {"on": "submit", "kind": "unlisted"})
    assert struck(made, "submit") == "drop_after"
    assert made.traits(Traits()) == Traits(unlisted=True)
    assert made.pending() == []


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"on": "submit", "kind": "oops"}, "unknown kind 'oops'"),
        ({"kind": "cut"}, "not on None"),
        ({"on": "job", "kind": "queue_full"}, "queue_full can be on submit"),
        ({"on": "job", "kind": "stuck"}, "stuck can be on submit"),
        ({"on": "submit", "kind": "cut", "times": 0}, "times"),
        ({"on": "submit", "kind": "slow", "seconds": "5"}, "seconds"),
        ({"on": "submit", "kind": "cut", "status": 500}, "cut takes bytes, not status"),
        ({"on": "submit", "kind": "server_error", "status": 418}, "500, 502, 503 or 504"),
        ({"on": "submit", "kind": "end_as", "status": "completed"}, "failed, moderated, cancelled"),
        ({"on": "submit", "kind": "lost"}, "lost can be on callback"),
        ({"on": "callback", "kind": "slow"}, "not on 'callback'"),
        ({"on": "callback", "kind": "lost", "share": 1.5}, "share"),
        ({"on": "callback", "kind": "lost", "share": 0}, "share"),
    ],
)
def test_a_wrong_fault_is_refused_with_what_would_be_right(wish: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Fault.from_json(wish)


@pytest.mark.parametrize(
    ("marker", "traits"),
    [
        ("failed", Traits(end_as="failed")),
        ("late-moderated", Traits(end_as="moderated")),
        ("late_moderated", Traits(end_as="moderated")),
        ("cancelled", Traits(end_as="cancelled")),
        ("stuck", Traits(stuck=True)),
        ("unlisted", Traits(unlisted=True)),
        ("no_video", Traits(no_video=True)),
        ("expired_link", Traits(expired_link=True)),
        ("seconds=40", Traits(pace=Pace(40))),
        ("reads=3", Traits(pace=Pace(reads=3))),
        ("late_listing=7.5", Traits(late_listing=7.5)),
        ("late_read=2", Traits(late_reads=2)),
    ],
)
def test_a_marker_about_the_job(marker: str, traits: Traits) -> None:
    assert read_markers(f"waves [emulator:{marker}] of gold") == (traits, None)


@pytest.mark.parametrize(
    ("marker", "kind", "params"),
    [
        ("400", "bad_request", {}),
        ("401", "unauthorized", {}),
        ("402", "payment", {}),
        ("404", "not_found", {}),
        ("422", "moderated", {}),
        ("moderated", "moderated", {}),
        ("504", "server_error", {"status": 504}),
        ("queue_full", "queue_full", {}),
        ("drop-after", "drop_after", {}),
        ("failed_at_once", "failed", {}),
        ("slow=3", "slow", {"seconds": 3}),
        ("discord_429=12.5", "discord_429", {"retry_after": 12.5}),
    ],
)
def test_a_marker_about_the_submit(marker: str, kind: str, params: dict[str, Any]) -> None:
    traits, fault = read_markers(f"[emulator:{marker}]")
    assert traits == Traits()
    assert fault == Fault("submit", kind, params=params)


def test_markers_combine() -> None:
    traits, fault = read_markers("x [emulator:drop_after] y [emulator:unlisted] [emulator:seconds=5]")
    assert traits == Traits(pace=Pace(5), unlisted=True)
    assert fault is not None
    assert fault.kind == "drop_after"


@pytest.mark.parametrize("marker", ["oops", "seconds", "ignore_range", "end_as", "reads=x"])
def test_an_unknown_marker_is_told(marker: str) -> None:
    with pytest.raises(ValueError, match="marker"):
        read_markers(f"[emulator:{marker}]")


def test_a_marker_strikes_only_the_first_submit_of_its_prompt() -> None:
    made = FaultScript()
    prompts = ["a [emulator:504]", "a [emulator:504]", "b [emulator:504]"]
    struck = [made.strike_prompt(prompt, read_markers(prompt)[1]) for prompt in prompts]
    assert [fault is not None for fault in struck] == [True, False, True]


def test_every_kind_is_in_the_documented_table() -> None:
    assert faults.__doc__ is not None
    for kind in (*faults.CALL_KINDS, *faults.JOB_KINDS):
        assert f"\n``{kind}`` " in faults.__doc__
