"""How the emulator behaves until a test scripts something else."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

from airflow_provider_pika.api.commands import MAX_JOBS_LIMIT

DEFAULT_TOKEN = "user:1000-emulator"  # noqa: S105 - opens nothing but an emulator
DEFAULT_CHANNEL = "1000000000000000001"
DEFAULT_SECONDS = 20.0
# What Discord's links lasted in 2024.
DEFAULT_LINK_SECONDS = 24 * 3600.0
DEFAULT_RENDERER_LIMIT = 1800.0


@dataclass(frozen=True)
class Pace:
    """
    How a job comes to its end: so many seconds after the submit, or with its n-th read.

    :param seconds: 0 means at once: the first poll already finds the job ended
    :param reads: if given, it counts instead of the seconds
    """

    seconds: float = DEFAULT_SECONDS
    reads: int | None = None


@dataclass(frozen=True)
class Settings:
    """
    What the emulator is started with.

    :param token: the one API token that is accepted
    :param channels: the configured accounts, channel to ``maxJobs``
    :param pace: how jobs end
    :param link_seconds: how long an attachment's signed link lasts
    :param list_delay: how long after it was made the list shows a job
    :param renderer: the program that makes the films, and its arguments; empty for the emulator's own films
    :param renderer_limit: seconds it may take for one
    """

    token: str = DEFAULT_TOKEN
    channels: dict[str, int] = field(default_factory=lambda: {DEFAULT_CHANNEL: MAX_JOBS_LIMIT})
    pace: Pace = Pace()
    link_seconds: float = DEFAULT_LINK_SECONDS
    list_delay: float = 0.0
    renderer: tuple[str, ...] = ()
    renderer_limit: float = DEFAULT_RENDERER_LIMIT

    def changed(self, wish: dict[str, Any]) -> Settings:
        """
        Return these settings with some changed, as ``/_emulator/configure`` asks for it.

        :param wish: any of ``seconds``, ``reads``, ``at_once``, ``max_jobs`` (of every channel), ``channels``,
            ``link_seconds``, ``list_delay``
        :raises ValueError: for a key or a value that makes no sense
        """
        settings = self
        for key, value in wish.items():
            if key == "at_once" and value is True:
                settings = replace(settings, pace=Pace(0))
            elif key == "seconds":
                settings = replace(settings, pace=Pace(number(key, value)))
            elif key == "reads":
                settings = replace(settings, pace=Pace(reads=whole_number(key, value, 10_000)))
            elif key == "link_seconds":
                settings = replace(settings, link_seconds=number(key, value))
            elif key == "list_delay":
                settings = replace(settings, list_delay=number(key, value))
            elif key == "channels" and isinstance(value, dict):
                limits = {str(name): whole_number(f"channels[{name}]", limit) for name, limit in value.items()}
                settings = replace(settings, channels=limits)
            elif key == "max_jobs":
                limit = whole_number(key, value)
                settings = replace(settings, channels=dict.fromkeys(settings.channels, limit))
            else:
                raise ValueError(f"cannot configure {key}={value!r}")
        return settings


def number(name: str, value: object) -> float:
    """Return a number of at least 0, or say which name did not hold one."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ValueError(f"{name} must be a number of at least 0, not {value!r}")
    return float(value)


def whole_number(name: str, value: object, most: int = MAX_JOBS_LIMIT) -> int:
    """Return a whole number from 1 up, or say which name did not hold one."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ValueError(f"{name} must be a whole number from 1 to {most}, not {value!r}")
    return value
