"""The soak over a real emulator: its weather has struck where it is counted and ends when told to, its judge sees."""

from __future__ import annotations

import json

import pytest

from airflow_provider_pika.exceptions import PikaError
from airflow_provider_pika.hooks.pika import PikaHook
from dev.harness.failing_secrets import FailingSecrets, Secrets
from dev.soak import weather
from dev.soak.judge import ADOPTED, UNKNOWN
from dev.soak.weather import Weather
from tests.support.submits import crash_before_answer, submit


@pytest.fixture
def secrets(tmp_path):
    return Secrets(tmp_path, {"some": {"conn_type": "pika"}})


@pytest.fixture
def said():
    return []


@pytest.fixture
def storm(pika_emulator, secrets, said, monkeypatch):
    """Weather of which every turn brings everything."""
    for name in ("SPELLS", "OUTAGES"):
        monkeypatch.setattr(weather, name, (0.0, 0.0))
    monkeypatch.setattr(weather, "_PAUSE", 0.0)
    monkeypatch.setattr(weather, "SUBMITS", [(1, {"kind": "drop_before"})])
    monkeypatch.setattr(weather, "READS", [(1, {"kind": "cut"})])
    monkeypatch.setattr(weather, "SPOILT", {"list": 1})
    return Weather(pika_emulator, secrets, 1, said.append)


def test_what_has_not_struck_yet_is_not_counted(storm):
    storm.turn()
    assert (storm.lost, storm.spoilt) == ({}, {})
    with pytest.raises(PikaError):
        PikaHook().encrypt_text(message="M", prompt="a film")
    with pytest.raises(PikaError):
        PikaHook().list_jobs()
    storm.end()
    assert (storm.lost, storm.spoilt) == ({"drop_before": 1}, {"list": 1})


def test_no_bad_weather_is_left_after_the_end(storm, pika_emulator):
    """A lone wait that asks every five minutes met all five reads that were still to be spoilt."""
    storm.turn()
    storm.end()
    assert PikaHook().list_jobs() == []
    PikaHook().encrypt_text(message="M", prompt="a film")
    assert (storm.lost, storm.spoilt) == ({}, {})


def test_no_storm_gathers_over_calls_that_nobody_makes(storm, said):
    for _ in range(5):
        storm.turn()
    assert sum("of list" in line for line in said) == 1


def test_the_secrets_backend_is_back_at_the_end(storm, secrets):
    backend = FailingSecrets(**json.loads(secrets.config["secrets.backend_kwargs"]))
    storm.turn()
    with pytest.raises(ConnectionError):
        backend.get_conn_value("some")
    storm.end()
    assert backend.get_conn_value("some")
    assert storm.outages == 1


def test_the_judge_knows_a_job_that_was_found_again_by_the_log_of_its_task(pika_emulator, life):
    """The words had changed, and the soak counted nothing as adopted."""
    pika_emulator.configure(seconds=3600)
    task = life(submit())
    crash_before_answer(task)
    assert ADOPTED not in task.log.text
    task.retry()
    assert ADOPTED in task.log.text


def test_the_judge_knows_a_submit_of_unknown_outcome_by_the_log_of_its_task(pika_emulator, life):
    task = life(submit())
    crash_before_answer(task, made=False)
    error = task.retry().error
    assert f"{type(error).__name__}: {error}".startswith(UNKNOWN)
