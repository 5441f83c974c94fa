"""A thin client of Airflow's public REST API (v2), for tests, benchmarks and the demo."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import requests

# What Airflow answers when its database refuses a statement, how often such a request is made in all, and seconds
# between: whoever else waited for the database has then had his turn.
_DATABASE_ERROR = '"reason":"Database error"'
_TRIES_WHILE_LOCKED = 5
_PAUSE_WHILE_LOCKED = 1.0


class AirflowApiError(AssertionError):
    """Airflow refused a request; the text says which and why."""


class AirflowApi:
    """The calls tests need; for any other there is :meth:`request`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.timeout = 60.0
        self._session = requests.Session()
        self._session.trust_env = False  # neither a proxy nor .netrc has a part in loopback

    def request(self, method: str, path: str, **kwargs: Any) -> Any:
        """
        Call ``/api/v2<path>`` and return the decoded answer; anything but 2xx raises.

        A write that met a locked SQLite was rolled back, and is asked again, as a person would who sees that error.
        """
        if "Authorization" not in self._session.headers:
            # All users are admins in this Airflow, so a token is to be had without a password.
            token = self._session.get(f"{self.url}/auth/token", timeout=30).json()["access_token"]
            self._session.headers["Authorization"] = f"Bearer {token}"
        for number in range(_TRIES_WHILE_LOCKED):
            time.sleep(number and _PAUSE_WHILE_LOCKED)
            answer = self._session.request(method, f"{self.url}/api/v2{path}", timeout=self.timeout, **kwargs)
            if answer.status_code != 500 or _DATABASE_ERROR not in answer.text:
                break
        if not answer.ok:
            raise AirflowApiError(f"{method} {path}: {answer.status_code} {answer.text[:2000]}")
        return answer.json() if answer.content else None

    def health(self) -> dict[str, Any] | None:
        """Return what the api-server says of all components, None while it does not answer."""
        try:
            answer = self._session.get(f"{self.url}/api/v2/monitor/health", timeout=5)
        except requests.RequestException:
            return None
        return answer.json() if answer.ok else None

    def serves_tasks(self, timeout: float = 60) -> bool:
        """
        Tell whether the part that serves workers and triggerers answers.

        Airflow puts it together at its first request, for seconds in which nobody else is answered: longer than a
        task waits for its start.
        """
        # With a header of our own: where all are admins Airflow adds a person's token, and logs that no task has it.
        none = {"Authorization": "none"}
        try:
            return self._session.get(f"{self.url}/execution/health", headers=none, timeout=timeout).ok
        except requests.RequestException:
            return False

    def trigger(self, dag_id: str, *, conf: dict[str, Any] | None = None, run_id: str | None = None) -> str:
        """Start a run and return its id."""
        body: dict[str, Any] = {"logical_date": None, "conf": conf or {}}
        if run_id:
            body["dag_run_id"] = run_id
        return str(self.request("POST", f"/dags/{dag_id}/dagRuns", json=body)["dag_run_id"])

    def clear(self, dag_id: str, run_id: str, tasks: Sequence[str | tuple[str, int]]) -> Any:
        """Clear task instances, each named by its id or by (id, map index), in whatever state they are."""
        body = {
            "dry_run": False,
            "dag_run_id": run_id,
            "task_ids": list(tasks),
            "only_failed": False,
        }
        return self.request("POST", f"/dags/{dag_id}/clearTaskInstances", json=body)

    def set_task_state(self, dag_id: str, run_id: str, task_id: str, state: str, map_index: int = -1) -> Any:
        """Mark a task instance as success, failed or skipped."""
        return self.request("PATCH", _task(dag_id, run_id, task_id, map_index), json={"new_state": state})

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        """Return the value of an XCom; a missing one raises."""
        path = f"{_path(dag_id, run_id, task_id)}/xcomEntries/{quote(key, safe='')}"
        return self.request("GET", path, params={"map_index": map_index, "stringify": "false"})["value"]

    def links(self, dag_id: str, run_id: str, task_id: str) -> dict[str, str | None]:
        """Return the extra links of a task instance."""
        return self.request("GET", f"{_path(dag_id, run_id, task_id)}/links")["extra_links"]


def _run(dag_id: str, run_id: str) -> str:
    return f"/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}"


def _path(dag_id: str, run_id: str, task_id: str) -> str:
    return f"{_run(dag_id, run_id)}/taskInstances/{task_id}"


def _task(dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
    return _path(dag_id, run_id, task_id) + (f"/{map_index}" if map_index >= 0 else "")
