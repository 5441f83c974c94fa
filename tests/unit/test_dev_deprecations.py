"""The watch over deprecations (dev/harness/deprecations.py) must see what Airflow's shims blame on somebody else."""

from __future__ import annotations

import warnings
from types import ModuleType

import pytest

from dev.harness import deprecations

USES = {
    "an import shim": "from airflow.utils.dates import days_ago",
    "a moved name": "from airflow.sensors.base import BaseSensorOperator",
    "a moved decorator": "from airflow.decorators import task",
}


def _run_as(name: str, code: str) -> None:
    exec(compile(code, f"/somewhere/{name.replace('.', '/')}.py", "exec"), ModuleType(name).__dict__)  # noqa: S102


@pytest.mark.parametrize("code", [USES["a moved name"], USES["a moved decorator"]])
def test_ours_is_found_whatever_line_airflow_names(code):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _run_as("airflow_provider_pika.made_up", code)
    assert [text for text in deprecations.take() if "airflow_provider_pika/made_up.py:1" in text]


def test_somebody_elses_is_not():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _run_as("somebody.made_up", USES["a moved decorator"])
    assert deprecations.take() == []


def test_a_warning_keeps_its_line():
    """The watch stands between a warning and its caller, and must not show."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.warn("hello", UserWarning, stacklevel=1)
    assert [(entry.filename, str(entry.message)) for entry in caught] == [(__file__, "hello")]
