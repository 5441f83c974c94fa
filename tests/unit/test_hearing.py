"""What a triggerer hears of the bells, and how often it asks for them."""

from __future__ import annotations

import pytest

from airflow_provider_pika.api import hearing
from airflow_provider_pika.api.callback import bell_key, job_digest
from airflow_provider_pika.api.hearing import EAR_INTERVAL, EAR_MAX_INTERVAL, Bells, ear_pause


def test_while_all_is_well_the_bells_are_asked_for_once_a_second() -> None:
    assert ear_pause(0, 0.013) == EAR_INTERVAL


def test_failures_slow_the_ear_down_to_a_limit() -> None:
    pauses = [ear_pause(failures, 0.01) for failures in range(2000)]
    assert pauses[:4] == [1, 2, 4, 8]
    assert max(pauses) == EAR_MAX_INTERVAL


def test_a_slow_question_is_asked_more_rarely() -> None:
    """It takes a tenth of the time at most, until the limit."""
    assert ear_pause(0, 0.25) == pytest.approx(2.5)
    assert ear_pause(0, 7.0) == EAR_MAX_INTERVAL


def test_a_bell_is_new_once() -> None:
    bells = Bells()
    first, second = bell_key(100, "job:1"), bell_key(101, "job:2")
    assert [ring.job for ring in bells.take_in([first])] == [job_digest("job:1")]
    assert bells.take_in([first]) == []
    assert [ring.job for ring in bells.take_in([first, second])] == [job_digest("job:2")]


def test_a_bell_whose_row_is_older_than_others_heard_is_not_missed() -> None:
    """One api-server's clock is behind, or its commit took long."""
    bells = Bells()
    bells.take_in([bell_key(200, "job:1")])
    late = bell_key(150, "job:2")
    assert [ring.at for ring in bells.take_in([late, bell_key(200, "job:1")])] == [150, 200]


def test_bells_are_remembered_for_as_long_as_they_have_rows() -> None:
    bells = Bells()
    bells.take_in([bell_key(100, "job:1"), bell_key(102, "job:1")])
    ring = bells.of_job(job_digest("job:1"))
    assert ring
    assert ring.at == 102
    bells.take_in([])
    assert bells.of_job(job_digest("job:1")) is None
    assert bells.rings == []


def test_other_variables_and_broken_bells_are_none() -> None:
    bells = Bells()
    assert bells.take_in(["pika_ended:", "pika_ended:x:y:z", "pika_endedness", "a"]) == []
    assert bells.take_in(["pika_ended:", "pika_ended:x:y:z", "pika_endedness", "b"]) == []


def test_a_flood_of_bells_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hearing, "MOST_BELLS", 10)
    bells = Bells()
    keys = [bell_key(at, f"job:{at}") for at in range(1000, 1100)]
    assert {ring.at for ring in bells.take_in(keys)} == set(range(1090, 1100))
    assert len(bells.rings) == 10
    assert bells.take_in(keys) == []
