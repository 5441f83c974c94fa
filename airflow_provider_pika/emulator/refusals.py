"""What the API refuses, in the words of its own page; whatever is more helpful stands in ``errorDetails``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_pika.api.commands import Command


class Refusal(Exception):
    """
    A request the API answers with an error.

    :param status: the HTTP status
    :param error: the ``error`` text
    :param extra: what else belongs into the body, such as ``executingJobs``
    """

    def __init__(self, status: int, error: str, /, **extra: Any) -> None:
        super().__init__(error)
        self.status = status
        self.body = {"error": error, **extra, "code": status}


def missing(command: Command[...], details: str) -> Refusal:
    """Return the 400 of a value that a command cannot do without, in the words of the API's page."""
    account = ("discord", "channel") if command.chooses_channel else ()
    names = [spec.api_name for spec in command.fields if spec.required or spec.api_name in account]
    return Refusal(400, f"{either(names)} value is missing", errorDetails=details)


def unknown_job(jobid: str) -> Refusal:
    """Return the 404 for a job nobody knows."""
    return Refusal(404, f"Unable to locate job {jobid}")


def queue_full(executing: list[str], limit: int) -> Refusal:
    """Return the 429 of a channel that runs as many jobs as it may."""
    return Refusal(
        429,
        f"Maximum of {limit} jobs executing in parallel supported",
        executingJobs=executing,
    )


def either(names: list[str]) -> str:
    """Name some fields as the API's page does."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last
