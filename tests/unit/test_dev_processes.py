"""However the owner of a family of processes ends, none of it is left running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from dev.harness.processes import wait_until

# A shell with a child, so that it takes more than one signal to end them; both print nothing and would last a minute.
OWNER = """
import os, signal, sys, time
from pathlib import Path
from dev.harness.processes import Family

# As a shell starts it; what runs in the background, as CI may, ignores Ctrl-C and so do its children.
signal.signal(signal.SIGINT, signal.default_int_handler)
family = Family(Path(sys.argv[1]), dict(os.environ))
try:
    family.start("shell", ["/bin/sh", "-c", "sleep 60 & wait"])
    print(family.pid("shell"), flush=True)
    time.sleep(60)
finally:
    family.stop(grace=1)
"""


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_when_the_owner_ends(tmp_path: Path, sig: int) -> None:
    """By Ctrl-C it ends them itself; killed, its guard does."""
    root = Path(__file__).parents[2]
    owner = subprocess.Popen(  # noqa: S603 - our own script
        [sys.executable, "-c", OWNER, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert owner.stdout is not None
    shell = psutil.Process(int(owner.stdout.readline()))
    family = [shell, *wait_until(shell.children, "the child of the shell", 10)]
    owner.send_signal(sig)
    owner.wait(10)
    wait_until(lambda: not any(process.is_running() for process in family), "the end of the family", 15)
    owner.stdout.close()
