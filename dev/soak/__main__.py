"""
``make soak``: submits in waves on a real Airflow, in any weather, while its processes are killed and frozen.

Judged at the end: no film is paid for twice, no jobid is lost, nothing is cancelled. The result goes to docs/soak.md.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from dev.harness.emulator import local_emulator
from dev.harness.failing_secrets import Secrets
from dev.harness.local_airflow import QUICK_TO_NOTICE, LocalAirflow
from dev.harness.processes import WaitError
from dev.soak.chaos import Chaos
from dev.soak.figures import Figures
from dev.soak.page import PAGE, page
from dev.soak.run import DAGS, Soak, say
from dev.soak.weather import Weather

QUEUE = 10


def main() -> int:
    """Run the soak; return 1 if a rule was broken or something did not end."""
    parser = argparse.ArgumentParser(prog="python -m dev.soak", description=__doc__)
    parser.add_argument("--submits", type=int, default=300)
    parser.add_argument("--minutes", type=float, default=90, help="no new wave, no kill and no bad weather after this")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="a folder for Airflow's files, kept afterwards")
    parser.add_argument("--dry", action="store_true", help=f"leave docs/{PAGE.name} as it is")
    options = parser.parse_args()
    # Ended from outside as by Ctrl-C: whatever was started ends first.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="pika-soak-") as folder:
        home = options.keep or Path(folder)
        try:
            figures = _soak(home, options)
        except KeyboardInterrupt:
            print("\nInterrupted; all processes are ended.", flush=True)
            return 130
        except WaitError as problem:
            print(f"The soak failed: {problem}", file=sys.stderr)
            return 1
    figures.tell()
    if not options.dry:
        command = f"python -m dev.soak --submits {options.submits} --minutes {options.minutes:g} --seed {options.seed}"
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(page(figures, command, QUEUE))
    return int(not figures.good)


def _soak(home: Path, options: argparse.Namespace) -> Figures:
    flags = ("--quiet", "--max-jobs", str(QUEUE))
    with local_emulator(home, *flags) as emulator:
        say("starting Airflow")
        secrets = Secrets(home / "secrets", {"pika_default": emulator.connection})
        config = {**QUICK_TO_NOTICE, **secrets.config}
        airflow = LocalAirflow(home / "airflow", dags=DAGS, config=config, env=secrets.env)
        called_back = {**emulator.connection, "extra": {"callback_url": airflow.front}}
        secrets.keep({"pika_default": called_back})
        with airflow:
            chaos = Chaos(airflow, options.seed, say)
            weather = Weather(emulator, secrets, options.seed, say)
            soak = Soak(airflow, emulator, chaos, weather, submits=options.submits, seed=options.seed)
            verdict = soak.run(options.minutes)
            return Figures.of(soak, verdict, wanted=options.submits)


if __name__ == "__main__":
    sys.exit(main())
