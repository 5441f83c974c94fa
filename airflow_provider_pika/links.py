"""The button on a task's page that opens its video."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


class PikaVideoLink(BaseOperatorLink):
    """
    Open the video of the job a task submitted, waited for or stored.

    Airflow asks for it on the worker, after every leg of the task, also one that ends in a deferral.
    """

    name = "Pika video"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002 - Airflow's signature
        """Return the ``video_url`` of the task that has just run: a stored copy or the job's own, signed link."""
        return browser_link(getattr(operator, "_video_url", None))


def browser_link(url: object) -> str:
    """
    Return a link that a browser opens from Airflow's page, an empty text for any other (``file://``, ``s3://``).

    Airflow's pages show no button for an empty link, while ``None`` would be stored as a text of its own.
    """
    return url if isinstance(url, str) and url.startswith(("https://", "http://")) else ""
