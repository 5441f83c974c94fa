"""The demo fails where what it shows does not work."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dev import demo
from dev.harness.processes import WaitError


def an_airflow(log: str) -> Any:
    return SimpleNamespace(runs=SimpleNamespace(log=lambda *_: log))


def test_the_demo_says_how_soon_it_was_called_back() -> None:
    log = "Polled: job:1 is progress\nPolled: job:1 is completed, told by the service after 0.4 s\n"
    assert demo._how_told(an_airflow(log), "run") == "told by the service after 0.4 s"


def test_a_demo_that_was_not_called_back_has_failed() -> None:
    """It printed "polled for" and ended well, so nobody saw that callbacks were broken."""
    with pytest.raises(WaitError, match="callback was not heard"):
        demo._how_told(an_airflow("Polled: job:1 is completed"), "run")
