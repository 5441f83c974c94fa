"""A thousand jobs, or ten, waiting in one trigger runner: what they ask of the API and what they cost the triggerer."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from dev.bench.report import Row, Section, at_most
from dev.harness.airflow_db import clean_env
from dev.harness.emulator import local_emulator

INTERVAL = 30.0
CHANNEL_LIMIT = 10
# After a minute each list is accompanied by a look at one job that it names: what is counted includes that.
SETTLE = 120.0
WINDOW = 120.0
# With callbacks: the ear's cost is there at once, and with as many bells it asks for full pages.
BELLS = 1000
KIB = 1024
BLOCK_LIMIT = 50


def run(*, count: int = 1000, settle: float = SETTLE, window: float = WINDOW) -> Section:
    """Run it in processes of its own, and return the table."""
    return _section("thousand", _figures(count, settle, window), count, window)


def tenfold(*, count: int = 10_000, settle: float = SETTLE, window: float = WINDOW) -> Section:
    """Do the same where ten times as many wait: more than Airflow lets into one runner by default."""
    return _section("ten-thousand", _figures(count, settle, window), count, window)


def heard(*, count: int = 1000, settle: float = SETTLE, window: float = WINDOW) -> Section:
    """Do the same where the service calls back, and once more without: what the ear costs, and what it brings."""
    polled = _figures(count, settle, window)
    return _heard_section(polled, _figures(count, settle, window, bells=BELLS), count)


def _figures(count: int, settle: float, window: float, bells: int = 0) -> dict[str, Any]:
    channels = [f"--channel=1{number:018d}" for number in range(-(-count // CHANNEL_LIMIT))]
    with (
        tempfile.TemporaryDirectory(prefix="pika-bench-") as home,
        local_emulator(Path(home), "--quiet", "--seconds", "1000000", *channels) as emulator,
    ):
        asked: dict[str, Any] = {"url": emulator.url, "token": emulator.token, "home": home}
        asked |= {"count": count, "settle": settle, "window": window, "bells": bells}
        extra = {"callback_url": "http://127.0.0.1:9"}
        env = {
            **clean_env(),
            "AIRFLOW_HOME": home,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/none.db",
            "AIRFLOW_CONN_PIKA_BENCH": json.dumps(json.loads(emulator.conn_uri) | ({"extra": extra} if bells else {})),
        }
        done = subprocess.run(
            [sys.executable, "-m", "dev.bench.waiters", json.dumps(asked)],
            env=env,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"the runner failed:\n{done.stdout[-3000:]}")
    figures: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    for phase in ("joining", "ending"):
        for side, beats in figures[phase].items():
            _explain(f"{phase}, {side}", beats)
    print(f"  {figures['many']}, failures {figures['failures']}, smallest gap {figures['smallest_gap']}", flush=True)
    return figures


def _explain(what: str, beats: dict[str, Any]) -> None:
    shown = {name: ", ".join(f"{1000 * value:.0f}" for value in beats[name][:5]) for name in ("gaps", "computed")}
    print(
        f"  {what}: gaps {shown['gaps']} ms; computed in a gap {shown['computed']} ms;"
        f" longest garbage collection {1000 * beats['garbage']:.0f} ms; longest steps (CPU, wall):",
        flush=True,
    )
    for cpu, wall, whose in beats["steps"][:5]:
        print(f"    {1000 * cpu:6.1f} {1000 * wall:6.1f} ms  {whose}", flush=True)


def _section(name: str, figures: dict[str, Any], count: int, window: float) -> Section:
    cpu, own = figures["cpu_percent"], figures["grown"]["asleep"] / count / KIB
    latest = max(figures["noticed"])
    return Section(
        name=name,
        about=(
            f"{count:,} jobs waiting in one of Airflow's trigger runners (its supervisor and its process, without a"
            f" database), {INTERVAL:g} s polls, beside a runner with as many triggers that only sleep. Counted over"
            f" {window:g} s while nothing ends; then three jobs end one by one, and then a fifth of all at once."
        ),
        other="only sleeping",
        rows=[
            at_most("API requests a minute in all, while nothing ends", figures["requests_a_minute"], 4, "{:.1f}"),
            at_most(
                "CPU above the sleepers, % of a core",
                cpu["ours"] - cpu["asleep"],
                2,
                http=f"{cpu['asleep']:.2f} in all",
            ),
            at_most(
                "memory a waiter above a sleeper, KiB",
                _above_a_sleeper(figures, count),
                20,
                "{:.1f}",
                http=f"{own:.1f} in all",
            ),
            at_most("a job's end noticed after, s (latest of three)", latest, INTERVAL, "{:.1f}"),
            *_loop("while all join and are looked at first", figures["joining"]),
            *_loop(f"while {count // 5} end at once", figures["ending"]),
            Row(f"{count // 5} ends noticed after, s", f"{figures['many']['seconds']:.1f}"),
        ],
    )


def _heard_section(polled: dict[str, Any], figures: dict[str, Any], count: int) -> Section:
    cpu = figures["cpu_percent"]
    each, quiet = _above_a_sleeper(figures, count), _above_a_sleeper(polled, count)
    return Section(
        name="heard",
        about=(
            f"The bench of {count:,} waiters, once more and then on a connection with callbacks: each second the runner"
            f" asks for the bells, {BELLS:,} of which are for jobs of others; a bell is rung for each that ends. The"
            " runner's side of a question is real; the supervisor answers it itself, instead of asking an api-server."
        ),
        other="only sleeping",
        rows=[
            at_most("API requests a minute in all, while nothing ends", figures["requests_a_minute"], 4, "{:.1f}"),
            at_most("CPU above the sleepers, % of a core", cpu["ours"] - cpu["asleep"], 3),
            Row("memory a waiter above a sleeper, KiB", f"{each:.1f}"),
            at_most("the same, above a waiter that only polls, KiB", each - quiet, 2, "{:.1f}"),
            at_most("a job's end noticed after, s (latest of three)", max(figures["noticed"]), 2.5, "{:.1f}"),
            *_loop(f"while {count // 5} end at once", figures["ending"]),
            Row(f"{count // 5} ends noticed after, s", f"{figures['many']['seconds']:.1f}"),
        ],
    )


def _above_a_sleeper(figures: dict[str, Any], count: int) -> float:
    return float(figures["grown"]["ours"] - figures["grown"]["asleep"]) / count / KIB


def _loop(when: str, beats: dict[str, Any]) -> list[Row]:
    ours, asleep = beats["ours"], beats["asleep"]
    return [
        at_most(
            f"event loop: longest stretch of the triggers' code {when}, ms of CPU",
            1000 * ours["computed"][0],
            BLOCK_LIMIT,
            "{:.0f}",
            http=f"{1000 * asleep['computed'][0]:.0f}",
        ),
        Row(
            f"event loop: longest step of Airflow's own runner {when}, ms of CPU",
            f"{1000 * ours['runner']:.0f}",
            f"{1000 * asleep['runner']:.0f}",
        ),
        # All of it: other processes, Airflow's garbage collection, its blocking log writes.
        Row(f"event loop: largest gap {when}, ms", f"{1000 * ours['gaps'][0]:.0f}", f"{1000 * asleep['gaps'][0]:.0f}"),
    ]
