"""The emulator as a guarded process of its own, for system tests, benchmarks and the demo."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from airflow_provider_pika.emulator.client import EmulatorClient
from dev.harness.airflow_db import clean_env
from dev.harness.processes import Family, tail, wait_until

NAME = "emulator"


@contextmanager
def local_emulator(logs: Path, *flags: str, token: str | None = None) -> Iterator[EmulatorClient]:
    """
    Run an emulator on a free port while the block lasts.

    It leaves nothing behind, also when its owner is killed.

    :param logs: folder for its log
    :param flags: as on the emulator's command line, but for ``--port`` and ``--token``
    :param token: the API token it accepts, to look for in places where it must not be
    """
    family = Family(logs, clean_env())
    family.log(NAME).unlink(missing_ok=True)
    command = [sys.executable, "-m", "airflow_provider_pika.emulator", "--port", "0", *flags]
    try:
        family.start(NAME, command + (["--token", token] if token else []))

        def url() -> str | None:
            family.check()
            found = re.search(r"http://127\.0\.0\.1:\d+", family.log(NAME).read_text())
            return found.group() if found else None

        address = wait_until(url, "the emulator's startup line", 120, detail=lambda: tail(family.log(NAME)))
        yield EmulatorClient(address, token) if token else EmulatorClient(address)
    finally:
        family.stop(grace=3)
