"""How the benches count."""

import pytest

from dev.bench.real_airflow import busy, idle, spread


def job(created: int, ended: int) -> dict[str, str]:
    return {"created": f"2026-01-01T00:00:{created:02}Z", "ended": f"2026-01-01T00:00:{ended:02}Z"}


def test_busy_counts_slots_until_the_last_submit():
    # Two slots: one ran from 0 to 20, the other from 0 to 10 and, after 5 s, on to the last submit at 15.
    assert busy([job(0, 20), job(0, 10), job(15, 40)], 2) == pytest.approx(100 * (15 + 10) / 30)


def test_a_freed_slot_is_idle_until_the_next_submit():
    assert idle([job(0, 20), job(0, 10), job(15, 40), job(21, 50)], 2) == [5, 1]
    assert idle([job(0, 20), job(0, 10)], 2) == []


def test_lengths_are_spread_evenly_and_alike_every_time():
    lengths = spread(40, 60, 90)
    assert (min(lengths), max(lengths), len(lengths)) == (60, 90, 40)
    assert lengths == spread(40, 60, 90) != sorted(lengths)
