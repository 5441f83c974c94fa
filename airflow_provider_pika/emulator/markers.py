"""
Faults that a person asks for in a prompt, so from a DAG, without a control route.

A marker is ``[emulator:MARKER]`` or ``[emulator:MARKER=NUMBER]``, several if need be, ``-`` and ``_`` alike.

About the job: ``failed``, ``late-moderated``, ``cancelled``, ``stuck``, ``unlisted``, ``no_video``,
``expired_link``, ``seconds=N``, ``reads=N``, ``late_listing=SECONDS``, ``late_read=READS``.

About the submit, striking only the first submit of that same prompt: ``failed_at_once``, and every kind of the first
table of :mod:`airflow_provider_pika.emulator.faults` except ``failed``, ``ignore_range`` and ``forbidden``; for short
``400``, ``401``, ``402``, ``404``, ``422``, ``500``, ``502``, ``503``, ``504``. Numbers: ``slow=SECONDS``,
``slow_take=SECONDS``, ``drip=SECONDS``, ``queue_full=RETRY_AFTER``, ``discord_429=RETRY_AFTER``,
``rate_limit=RETRY_AFTER``, ``cut=BYTES``.
"""

from __future__ import annotations

import re
from dataclasses import replace

from airflow_provider_pika.emulator.faults import CALL_KINDS, JOB_KINDS, Fault, Traits
from airflow_provider_pika.emulator.settings import Pace, number

_MARKER = re.compile(r"\[emulator:([^\]]*)\]")
_STATUS_MARKERS = {
    "400": "bad_request",
    "401": "unauthorized",
    "402": "payment",
    "404": "not_found",
    "422": "moderated",
    "failed_at_once": "failed",
}
_SUBMIT_MARKERS = {
    kind for kind, (calls, _) in CALL_KINDS.items() if "submit" in calls and kind not in ("failed", "forbidden")
}
_MARKER_NUMBERS = {
    "slow": "seconds",
    "slow_take": "seconds",
    "drip": "seconds",
    "queue_full": "retry_after",
    "discord_429": "retry_after",
    "rate_limit": "retry_after",
    "cut": "bytes",
}


def read_markers(prompt: str) -> tuple[Traits, Fault | None]:
    """
    Read a prompt's markers.

    :raises ValueError: for a marker that does not exist
    """
    traits, struck = Traits(), None
    for text in _MARKER.findall(prompt):
        name, _, value = text.partition("=")
        marker = name.strip().replace("-", "_").lower()
        try:
            amount = number(marker, float(value)) if value else None
        except ValueError as wrong:
            raise ValueError(f"unknown marker [emulator:{text}]: {wrong}") from None
        if marker in ("failed", "late_moderated", "cancelled"):
            traits = traits.with_kind("end_as", {"status": marker.removeprefix("late_")})
        elif marker == "seconds" and amount is not None:
            traits = replace(traits, pace=Pace(amount))
        elif marker == "reads" and amount is not None:
            traits = replace(traits, pace=Pace(reads=int(amount)))
        elif marker in JOB_KINDS and marker != "end_as":
            only = next(iter(JOB_KINDS[marker]), "")
            number_of = {} if amount is None else {only: int(amount) if only == "reads" else amount}
            traits = traits.with_kind(marker, number_of)
        elif marker in ("500", "502", "503", "504"):
            struck = Fault("submit", "server_error", params={"status": int(marker)})
        elif (kind := _STATUS_MARKERS.get(marker, marker)) in _SUBMIT_MARKERS or marker in _STATUS_MARKERS:
            params = {} if amount is None or kind not in _MARKER_NUMBERS else {_MARKER_NUMBERS[kind]: amount}
            struck = Fault("submit", kind, params=params)
        else:
            raise ValueError(f"unknown marker [emulator:{text}]")
    return traits, struck
