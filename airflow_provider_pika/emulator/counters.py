"""What was asked of the emulator: the counters, and how they are told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_pika.emulator.jobs import Job

# What comes of a job's end with a replyUrl: each delivery counts once, as one of the first four.
_OUTCOMES = ("delivered", "failed", "not_delivered", "lost", "retried")


@dataclass
class Counters:
    """What was asked of the emulator."""

    requests: int = 0
    submits: int = 0
    submits_lost: int = 0
    submits_refused: dict[str, int] = field(default_factory=dict)
    cancels: dict[str, int] = field(default_factory=dict)
    polls: dict[str, list[float]] = field(default_factory=dict)
    lists: int = 0
    accounts: int = 0
    checks: int = 0
    attachments: int = 0
    token_leaks: int = 0
    redirects_followed: int = 0
    peak_running: dict[str, int] = field(default_factory=dict)
    callbacks: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_OUTCOMES, 0))
    deliveries: list[dict[str, Any]] = field(default_factory=list)


def counters_json(counters: Counters, jobs: Iterable[Job]) -> dict[str, Any]:
    """Return the counters as ``GET /_emulator/counters`` tells them."""
    polls = {
        jobid: {"count": len(times), "smallest_gap": _smallest_gap(times)} for jobid, times in counters.polls.items()
    }
    gaps = [poll["smallest_gap"] for poll in polls.values() if poll["smallest_gap"] is not None]
    return {
        "requests": counters.requests,
        "submits": {
            "asked": counters.submits,
            "refused": counters.submits_refused,
            "lost": counters.submits_lost,
        },
        "jobs": [_job_json(job) for job in jobs],
        "polls": {
            "total": sum(len(times) for times in counters.polls.values()),
            "smallest_gap": min(gaps, default=None),
            "by_job": polls,
        },
        "cancels": counters.cancels,
        "lists": counters.lists,
        "accounts": counters.accounts,
        "checks": counters.checks,
        "peak_running": counters.peak_running,
        "attachments": counters.attachments,
        "token_leaks": counters.token_leaks,
        "redirects_followed": counters.redirects_followed,
        "callbacks": counters.callbacks,
    }


def _job_json(job: Job) -> dict[str, Any]:
    return {
        "jobid": job.jobid,
        "verb": job.asked.command.verb,
        "parent": job.asked.texts.get("jobid"),
        "replyRef": job.asked.reply_ref,
        "message": job.shows.message,
        "prompt": job.shows.prompt,
        "channel": job.channel,
        "status": job.status,
        "created": moment(job.created),
        "ended": moment(job.ended),
        "seen": moment(job.seen),
    }


def _smallest_gap(times: list[float]) -> float | None:
    gaps = [later - earlier for earlier, later in pairwise(times)]
    return round(min(gaps), 3) if gaps else None


def moment(seconds: float | None) -> str | None:
    """Return a time, UTC epoch seconds, as the control routes tell it."""
    return None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")
