"""The name of the host a process of a fleet counts itself to: one machine plays several."""

from __future__ import annotations

import os
import socket

NAME = "PIKA_DEV_HOST"


def host_name() -> str:
    """Return the host of this process, for ``core.hostname_callable``."""
    return os.environ.get(NAME) or socket.gethostname()
