"""``make bench``: what this provider costs, beside the HTTP provider; the results go to docs/benchmarks.md."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import signal
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec

from dev.bench import callbacks, database, imports, real_airflow, thousand
from dev.bench.report import PAGE, Row, Section, store
from dev.harness.processes import WaitError


def transfer() -> Section:
    """Let the transfer's own bench print its table."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        missed = importlib.import_module("dev.bench.transfer").main()
    print(said.getvalue(), flush=True)
    about = "Downloads and images: memory of the task, and throughput against curl."
    rows = [Row("all of them", "see above", met=not missed)]
    return Section("transfer", about, rows, text=said.getvalue())


BENCHES: dict[str, Callable[[], Section]] = {
    "imports": imports.run,
    "uncontended": real_airflow.uncontended,
    "watch": real_airflow.watch,
    "queue": real_airflow.queue,
    "callbacks": callbacks.ends,
    "callbacks-line": callbacks.line,
    "callbacks-killed": callbacks.killed,
    "thousand": thousand.run,
    "ten-thousand": thousand.tenfold,
    "heard": thousand.heard,
    "database": database.run,
    "transfer": transfer,
}
# Who asks for the first gets the others too.
TOGETHER = {"thousand": ["ten-thousand"], "callbacks": ["callbacks-line", "callbacks-killed"]}


def main() -> int:
    """Run the benches asked for; return 1 if a goal was missed or a bench failed."""
    parser = argparse.ArgumentParser(prog="python -m dev.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"{', '.join(BENCHES)}; all if none is given")
    parser.add_argument("--dry", action="store_true", help=f"leave docs/{PAGE.name} as it is")
    asked = parser.parse_args()
    if unknown := [name for name in asked.names if name not in BENCHES]:
        parser.error(f"there is no bench {unknown[0]!r}; there are {', '.join(BENCHES)}")
    # Ended from outside as by Ctrl-C: whatever was started ends first.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    bad: list[str] = []
    names = asked.names or [name for name in BENCHES if name != "transfer" or find_spec("dev.bench.transfer")]
    for name in dict.fromkeys(each for asked_for in names for each in (asked_for, *TOGETHER.get(asked_for, []))):
        print(f"== {name}", flush=True)
        began = time.monotonic()
        try:
            section = BENCHES[name]()
        except KeyboardInterrupt:
            print("\nInterrupted; all processes are ended.", flush=True)
            return 130
        except (WaitError, RuntimeError) as problem:
            print(f"{name} failed: {problem}", file=sys.stderr, flush=True)
            bad.append(f"{name} failed")
            continue
        if not section.text:
            print(f"\n{section.table()}\n", flush=True)
        print(f"  {time.monotonic() - began:.0f} s", flush=True)
        bad += [f"{name}: {row.figure}" for row in section.missed]
        if not asked.dry:
            store(section, f"python -m dev.bench {name}")
    print("\n".join(["Missed:", *bad]) if bad else "All goals are met.", flush=True)
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
