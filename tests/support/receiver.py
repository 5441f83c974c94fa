"""The receiver of callbacks as the service meets it, and mailboxes that real tasks have opened for it."""

from __future__ import annotations

import json
import uuid
from typing import Any

import requests

from airflow_provider_pika.api.callback import BELL_PREFIX, job_digest, mailbox_key, new_token, read_bell, reply_url
from dev.harness.local_airflow import LocalAirflow
from dev.harness.processes import wait_until

# Of tests/system/dags/pika_mailboxes.py.
DAG = "mailboxes"


class Receiver:
    """
    The api-servers, and mailboxes that are open in their database.

    ``owner`` is the id of the task instance that has opened them.
    """

    owner: str

    def __init__(self, airflow: LocalAirflow) -> None:
        self.airflow = airflow
        self.tokens = [new_token() for _ in range(20)]
        self.awaited = new_token()
        self.used = [*self.tokens, self.awaited]
        self._http = requests.Session()
        self._http.trust_env = False

    def start(self, **conf: Any) -> tuple[str, str]:
        """Start a run whose mailboxes are for the tests, return it and its task's id."""
        run_id = self.airflow.runs.trigger(
            DAG,
            conf={
                "keys": [mailbox_key(token) for token in self.tokens],
                "awaited": mailbox_key(self.awaited),
                **conf,
            },
        )
        return run_id, self.ti_id(run_id, "opens")

    def ti_id(self, run_id: str, task_id: str) -> str:
        def found() -> str | None:
            row = self.airflow.db.task(DAG, run_id, task_id)
            return row and str(uuid.UUID(str(row["id"])))

        return wait_until(found, f"task instance {task_id}", 30)

    def call_early(self, run_id: str, jobid: str) -> int:
        """Call while the task runs that awaits it: its mailbox is open, and that is enough."""
        url = self.url(self.ti_id(run_id, "waits"), self.awaited)
        wait_until(lambda: self.mailbox(self.awaited), "the mailbox of a running task", 60)
        return self.call(url, jobid)

    def mailbox(self, token: str) -> dict[str, Any] | None:
        rows = self.airflow.db.sql("SELECT value FROM task_state_store WHERE key = ?", (mailbox_key(token),))
        return json.loads(rows[0]["value"]) if rows else None

    def bells(self, jobid: str | None = None) -> int:
        rows = self.airflow.db.sql("SELECT key FROM variable WHERE key LIKE ?", (f"{BELL_PREFIX}%",))
        rings = [read_bell(row["key"]) for row in rows]
        return sum(jobid is None or ring.job == job_digest(jobid) for ring in rings if ring)

    def written(self) -> list[dict[str, Any]]:
        """Return all that a call could have written."""
        return [
            *self.airflow.db.sql("SELECT key, value FROM task_state_store ORDER BY id"),
            *self.airflow.db.sql("SELECT key FROM variable ORDER BY id"),
        ]

    def url(self, ti_id: str, token: str, server: str | None = None) -> str:
        return reply_url(server or self.airflow.front, ti_id, token)

    def call(self, url: str, jobid: str = "job:1", *, body: bytes | None = None, method: str = "POST") -> int:
        return self.answer(url, jobid, body=body, method=method).status_code

    def answer(self, url: str, jobid: str = "job:1", *, body: bytes | None = None, method: str = "POST") -> Any:
        data = json.dumps({"jobid": jobid, "status": "completed"}).encode() if body is None else body
        return self._http.request(method, url, data=data, timeout=30)


class Box:
    """One open mailbox, of a task that has ended."""

    def __init__(self, receiver: Receiver, ti_id: str, token: str) -> None:
        self.receiver, self.ti_id, self.token = receiver, ti_id, token
        self.url = receiver.url(ti_id, token)

    def content(self) -> Any:
        return self.receiver.mailbox(self.token)

    def jobids(self) -> list[str]:
        return self.content()["jobids"]
