"""What a triggerer hears of the bells that the api-server rings: decisions without clocks or network.

All bells of the last minutes are asked for each time. That misses none, whatever the clocks of the hosts say and
however late a row was committed; what is asked in vain are keys of 50 bytes, a thousand to a page.
"""

from __future__ import annotations

from collections.abc import Sequence

from airflow_provider_pika.api.callback import Ring, read_bell

# An end is to be known within a second or so.
EAR_INTERVAL = 1.0
# While the bells cannot be asked for, and where asking takes long, up to this.
EAR_MAX_INTERVAL = 10.0
# Asking takes no more than this part of the time: thousands of bells, or a database that labours, slow it down.
EAR_SHARE = 0.1
# As many bells are remembered, the newest; each has a row in Airflow's database for five minutes.
MOST_BELLS = 20_000


def ear_pause(failures: int, took: float) -> float:
    """
    Return how many seconds to wait before asking for the bells again.

    :param failures: how often in a row they could not be asked for
    :param took: how many seconds the last question took
    """
    slower = EAR_INTERVAL * 2.0 ** min(failures, 10)
    return min(EAR_MAX_INTERVAL, max(slower, took / EAR_SHARE))


class Bells:
    """The bells that can be heard: those the last answer named, so they are forgotten when their rows are."""

    def __init__(self) -> None:
        self._rings: dict[str, Ring] = {}
        self._by_job: dict[str, Ring] = {}

    def take_in(self, keys: Sequence[str]) -> list[Ring]:
        """Take in all bells there are; return those not heard before."""
        latest = sorted(keys)[-MOST_BELLS:]
        if len(latest) == len(self._rings) and self._rings.keys() >= set(latest):
            return []
        before, self._rings = self._rings, {}
        new = []
        for key in latest:
            ring = before.get(key) or read_bell(key)
            if ring:
                self._rings[key] = ring
                if key not in before:
                    new.append(ring)
        self._by_job = {ring.job: ring for ring in self._rings.values()}
        return new

    @property
    def rings(self) -> list[Ring]:
        """All of them."""
        return list(self._rings.values())

    def of_job(self, digest: str) -> Ring | None:
        """Return the newest for a job."""
        return self._by_job.get(digest)
