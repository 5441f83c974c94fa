"""Tasks with mailboxes, for the tests of the receiver: they open them as a paid submit does, and pay for nothing."""

from __future__ import annotations

import time

from airflow.sdk import DAG, task

with DAG("mailboxes", schedule=None):

    @task
    def opens(**context: object) -> None:
        """Open the mailboxes the run's conf names, and end."""
        for key in context["dag_run"].conf["keys"]:
            context["task_state_store"].set(key, {"jobids": []})

    @task
    def waits(**context: object) -> list[str]:
        """Open a mailbox, and return the first jobids that come while this still runs."""
        key = context["dag_run"].conf["awaited"]
        store = context["task_state_store"]
        store.set(key, {"jobids": []})
        for _ in range(300):
            if jobids := store.get(key)["jobids"]:
                return jobids
            time.sleep(0.1)
        raise TimeoutError("nobody called")

    opens()
    waits()
