"""Signed links that expire, in the form of Discord's."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Links:
    """Signs and checks links; the key is this process's own, so links do not outlive it, as its jobs do not."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def sign(self, path: str, issued: float, expires: float) -> str:
        """Return the path with the query that makes it readable until it expires."""
        ex, issued_at = f"{int(expires):x}", f"{int(issued):x}"
        return f"{path}?ex={ex}&is={issued_at}&hm={self._hm(path, ex, issued_at)}"

    def is_valid(self, path: str, query: Mapping[str, str], now: float) -> bool:
        """Tell whether the query was signed for this path and has not expired."""
        ex, issued_at, given = (
            query.get("ex", ""),
            query.get("is", ""),
            query.get("hm", ""),
        )
        if not hmac.compare_digest(given.encode(), self._hm(path, ex, issued_at).encode()):
            return False
        return now < int(ex, 16)

    def _hm(self, path: str, ex: str, issued_at: str) -> str:
        return hmac.new(self._key, f"{path}\n{ex}\n{issued_at}".encode(), hashlib.sha256).hexdigest()
