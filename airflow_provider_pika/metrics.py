"""What is counted and timed, through Airflow's own Stats."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from airflow_provider_pika.compat import stats

if TYPE_CHECKING:
    from airflow_provider_pika.api.job import Job


def count_submit(outcome: str, *, queued: float | None = None) -> None:
    """
    Count a submit in Airflow's metrics.

    :param outcome: ``made``, ``queue_full``, ``rate_limited``, ``unknown`` or ``refused``
    :param queued: seconds from the first attempt to the job
    """
    airflow = stats()
    airflow.incr("pika.submit", tags={"outcome": outcome})
    if queued is not None:
        airflow.timing("pika.queue_wait", timedelta(seconds=queued))


def count_job(job: Job) -> None:
    """Record how long a job took, by how it ended."""
    if job.duration is not None:
        stats().timing("pika.job_duration", timedelta(seconds=job.duration), tags={"outcome": job.status})
