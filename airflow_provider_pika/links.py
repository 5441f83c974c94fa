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
        """
        Return the ``video_url`` of the task that has just run: a stored copy or the job's own, signed link.

        Airflow's pages show no button for an empty link, while ``None`` would be stored as a text of its own.
        """
        link = getattr(operator, "_video_url", None)
        # A browser refuses to open anything else from Airflow's page (file://, s3://), so it is no link.
        return link if isinstance(link, str) and link.startswith(("https://", "http://")) else ""
