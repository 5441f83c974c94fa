"""The button on a task's page that opens its video."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


class PikaVideoLink(BaseOperatorLink):
    """Open the video of the job a task submitted or waited for."""

    name = "Pika video"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the video's signed URL (it expires within a day), or nothing while there is no video."""
        from airflow.sdk.execution_time.xcom import XCom

        return XCom.get_value(key="video_url", ti_key=ti_key) or ""
