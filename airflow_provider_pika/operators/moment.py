"""When something happened in this process, for what must not be late."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Moment:
    """A moment on this process's own clocks."""

    wall: float
    monotonic: float

    @classmethod
    def now(cls) -> Moment:
        """Return this moment."""
        return cls(time.time(), time.monotonic())

    def until(self, later: Moment) -> float:
        """Return the seconds between: a stopped process shows on both clocks, a frozen machine perhaps on one."""
        return max(later.wall - self.wall, later.monotonic - self.monotonic)

    @property
    def age(self) -> float:
        """Seconds since."""
        return self.until(Moment.now())
