"""The errors themselves: what they carry, and their way from a trigger to a worker."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest

from airflow_provider_pika import exceptions
from airflow_provider_pika.exceptions import PikaError, PikaQueueFullError

KINDS = [
    "PikaRequestError",
    "PikaAuthError",
    "PikaPaymentError",
    "PikaNotFoundError",
    "PikaModeratedError",
    "PikaQueueFullError",
    "PikaRateLimitedError",
    "PikaUnknownOutcomeError",
    "PikaUnavailableError",
    "PikaJobFailedError",
]


def make(name: str) -> PikaError:
    extra: dict[str, Any] = {
        "PikaQueueFullError": {"executing_jobs": ("job:1", "job:2")},
        "PikaRateLimitedError": {"retry_after": 3.5},
    }.get(name, {})
    kind = getattr(exceptions, name)
    error: PikaError = kind("said", status=418, error="E", details="D", jobid="job:1", **extra)
    return error


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_a_plain_pika_error_and_of_no_other_kind(name: str) -> None:
    assert type(make(name)).__mro__[1:3] == (PikaError, Exception)


def test_the_kinds_are_those_of_the_design() -> None:
    assert sorted(kind.__name__ for kind in PikaError.__subclasses__()) == sorted(KINDS)


@pytest.mark.parametrize("name", [*KINDS, "PikaError"])
def test_what_is_absent_is_none(name: str) -> None:
    error = getattr(exceptions, name)("said")
    assert (error.status, error.error, error.details, error.jobid, error.retry_after) == (None,) * 5


@pytest.mark.parametrize("name", [*KINDS, "PikaError"])
def test_an_error_survives_the_way_through_a_trigger_event(name: str) -> None:
    error = make(name)
    again = PikaError.from_event(json.loads(json.dumps(error.to_event())))
    assert (type(again), str(again), vars(again)) == (type(error), "said", vars(error))


@pytest.mark.parametrize("name", [*KINDS, "PikaError"])
def test_an_error_can_be_pickled(name: str) -> None:
    error = make(name)
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (type(again), str(again), vars(again)) == (type(error), "said", vars(error))


def test_a_kind_of_another_version_becomes_the_base_error() -> None:
    error = PikaError.from_event({"kind": "PikaTomorrowError", "message": "said", "status": 500, "new": 1})
    assert (type(error), str(error), error.status) == (PikaError, "said", 500)


def test_keys_of_another_version_are_left_aside() -> None:
    assert "new" not in vars(PikaError.from_event({"kind": "PikaAuthError", "message": "said", "new": 1}))


def test_an_event_without_anything_is_an_error_all_the_same() -> None:
    assert type(PikaError.from_event({})) is PikaError


def test_an_event_of_a_version_without_executing_jobs_gives_an_empty_list() -> None:
    error = PikaError.from_event({"kind": "PikaQueueFullError", "message": "said"})
    assert isinstance(error, PikaQueueFullError)
    assert error.executing_jobs == []


def test_executing_jobs_is_a_list_of_its_own() -> None:
    jobs = ["job:1"]
    error = PikaQueueFullError("said", executing_jobs=jobs)
    jobs.append("job:2")
    assert error.executing_jobs == ["job:1"]
