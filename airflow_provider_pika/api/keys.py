"""What the keys of bells and claims are made of: Variables whose *key* is the message."""

from __future__ import annotations

import hashlib

# Digits of milliseconds: what is longer is no time.
_TIME_LIMIT = 15


def digest(text: str, length: int) -> str:
    """Return so many hexadecimal digits by which a text can be known, and from which it cannot be read."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:length]


def write_time(at: float) -> str:
    """Return UTC epoch seconds as they stand in a key, in milliseconds."""
    return f"{at * 1000:.0f}"


def read_time(text: str) -> float | None:
    """Return the UTC epoch seconds that stand in a key; None for what is no time."""
    return int(text) / 1000 if text.isdecimal() and len(text) <= _TIME_LIMIT else None
