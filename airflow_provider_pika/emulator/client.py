"""Talking to an emulator, in this process or in another one."""

from __future__ import annotations

import json
from typing import Any, cast
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from airflow_provider_pika.emulator.settings import DEFAULT_TOKEN


class EmulatorClient:
    """
    Scripts and questions a running emulator.

    :param url: its root URL, as its startup line tells it
    :param token: the API token it accepts
    """

    def __init__(self, url: str, token: str = DEFAULT_TOKEN) -> None:
        self.url = url.rstrip("/")
        self.token = token
        # The loopback is never behind a proxy, whatever the environment says of the rest of the world.
        self._opener = build_opener(ProxyHandler({}))

    @property
    def connection(self) -> dict[str, str]:
        """The arguments of an Airflow ``Connection`` that leads to this emulator."""
        return {"conn_type": "pika", "host": self.url, "password": self.token}

    @property
    def conn_uri(self) -> str:
        """The same as the JSON text that an ``AIRFLOW_CONN_…`` variable takes."""
        return json.dumps(self.connection)

    def fault(self, on: str, kind: str, **params: Any) -> None:
        """
        Script a fault; :mod:`airflow_provider_pika.emulator.faults` has the table.

        :param on: the call it strikes
        :param kind: what goes wrong
        :param params: ``times``, ``after``, ``jobid`` and what the kind takes
        """
        self._ask("/_emulator/faults", [{"on": on, "kind": kind, **params}])

    def faults(self) -> list[dict[str, Any]]:
        """Return the faults that may still strike, oldest first; ``times`` is how many calls are left to each."""
        return cast("list[dict[str, Any]]", self._ask("/_emulator/faults"))

    def take_back_faults(self) -> list[dict[str, Any]]:
        """Forget the faults that may still strike, and return them; what has befallen a job stays with it."""
        return cast("list[dict[str, Any]]", self._ask("/_emulator/faults", method="DELETE"))

    def advance(
        self,
        seconds: float | None = None,
        *,
        jobid: str | None = None,
        status: str | None = None,
        content: str | None = None,
    ) -> None:
        """
        Let time pass at once, or put one job into a state.

        :param seconds: how much time passes; give this, or else a jobid and a status
        :param content: the job's ``content`` text in that state
        """
        wish = {
            "seconds": seconds,
            "jobid": jobid,
            "status": status,
            "content": content,
        }
        self._ask(
            "/_emulator/advance",
            {name: value for name, value in wish.items() if value is not None},
        )

    def configure(self, **settings: Any) -> None:
        """
        Change how jobs made from now on behave, until the next reset.

        :param settings: any of ``seconds``, ``reads``, ``at_once=True``, ``max_jobs``, ``link_seconds``, ``list_delay``
            (seconds until the list shows a job), ``channels`` (a dict of channel to maxJobs)
        """
        self._ask("/_emulator/configure", settings)

    def counters(self) -> dict[str, Any]:
        """Return what was asked of the emulator so far."""
        return cast("dict[str, Any]", self._ask("/_emulator/counters"))

    def jobs(self) -> list[dict[str, Any]]:
        """Return the jobs made so far, oldest first; ``seen`` is when a read first told that one had ended."""
        return cast("list[dict[str, Any]]", self.counters()["jobs"])

    def requests(self) -> list[dict[str, Any]]:
        """Return the last API requests, oldest first."""
        return cast("list[dict[str, Any]]", self._ask("/_emulator/requests"))

    def callbacks(self) -> list[dict[str, Any]]:
        """
        Return what came of each try to call back, in the order of their ends.

        Each has ``jobid``, ``url`` (without its secrets), ``ended`` (the job), ``sent``, ``answered``, ``status``,
        ``attempt`` and ``outcome``: ``delivered``, ``retried``, ``failed``, ``lost`` or ``not_delivered`` (not on this
        machine). Times are ISO 8601, of the same clock as those of :meth:`jobs`.
        """
        return cast("list[dict[str, Any]]", self._ask("/_emulator/callbacks"))

    def reset(self) -> None:
        """Forget jobs, faults and counters, and go back to the settings of the start."""
        self._ask("/_emulator/reset", {})

    def _ask(self, path: str, wish: object = None, *, method: str | None = None) -> Any:
        data = None if wish is None else json.dumps(wish).encode()
        headers = {"Content-Type": "application/json"}
        request = Request(self.url + path, data, headers, method=method)  # noqa: S310 - a test's own URL
        try:
            with self._opener.open(request, timeout=30) as answer:
                return json.load(answer)
        except HTTPError as refused:
            with refused:
                raise ValueError(f"the emulator refused {path}: {json.load(refused)['error']}") from None
