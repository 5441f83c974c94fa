"""
The last resort against processes left behind.

A :class:`dev.harness.processes.Family` starts one guard and holds the other end of its stdin. However the owner
ends, SIGKILL included, the pipe closes; the guard then ends every process that carries the family's mark.
Run as a plain script, so that nothing but psutil is imported.
"""

from __future__ import annotations

import sys

import psutil

MARK = "PIKA_DEV_FAMILY"
GRACE = 5.0


def marked(mark: str) -> list[psutil.Process]:
    """Return every live process whose environment carries the mark, whoever its parent is by now."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:  # gone meanwhile, or somebody else's
            continue
    return found


def end_marked(mark: str, grace: float = GRACE) -> None:
    """Ask every marked process to end, then kill what is left, and look again for what was born meanwhile."""
    for process in marked(mark):
        _signal(process, kill=False)
    psutil.wait_procs(marked(mark), timeout=grace)
    while remains := marked(mark):
        for process in remains:
            _signal(process, kill=True)
        psutil.wait_procs(remains, timeout=1)


def _signal(process: psutil.Process, *, kill: bool) -> None:
    try:
        if kill:
            process.kill()
        else:
            process.terminate()
    except psutil.Error:
        pass


if __name__ == "__main__":
    sys.stdin.buffer.read()
    end_marked(sys.argv[1])
