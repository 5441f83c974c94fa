"""How long ago something was: a suspended machine stops one clock, an adjusted one turns the other back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from airflow_provider_pika.operators.moment import Moment


@pytest.mark.parametrize("clock", ["wall", "monotonic"])
def test_a_moment_is_as_old_as_the_clock_that_went_on_says(clock: str) -> None:
    earlier = Moment(1000.0, 50.0)
    later = replace(earlier, **{clock: getattr(earlier, clock) + 300})
    assert earlier.until(later) == 300
