"""An Airflow connection of type ``pika``, read and checked once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_provider_pika.exceptions import PikaRequestError
from airflow_provider_pika.provider_info import DEFAULT_HOST

if TYPE_CHECKING:
    from airflow.sdk import Connection

# Source of the limits: the contract. The POST waits for the bot's first message.
CONNECT_TIMEOUT = 10.0
READ_TIMEOUT = 20.0
SUBMIT_TIMEOUT = 60.0


@dataclass(frozen=True)
class PikaSettings:
    """
    What the hook needs of its connection. The secrets are kept out of ``repr``.

    :param base_url: root URL without a trailing slash
    :param timeout: seconds a read waits for its answer
    """

    base_url: str
    token: str = field(repr=False)
    channel: str | None = None
    discord: str | None = field(default=None, repr=False)
    max_jobs: int | str | None = None
    timeout: float = READ_TIMEOUT

    @classmethod
    def from_connection(cls, conn_id: str, conn: Connection) -> PikaSettings:
        """
        Read a connection.

        :raises PikaRequestError: naming the connection and what to put where
        """
        extra: dict[str, Any] = conn.extra_dejson
        token = (conn.password or "").strip()
        if not token:
            raise _bad(conn_id, "has no API token: put it into the connection's password")
        for name, secret in (("API token in its password", token), ("extra 'discord_token'", extra.get("discord_token"))):
            if secret and not (isinstance(secret, str) and secret.isascii() and secret.isprintable()):
                raise _bad(conn_id, f"holds characters in the {name} that no token has: copy it anew")
        return cls(
            base_url=_base_url(conn_id, conn),
            token=token,
            channel=extra.get("channel") or None,
            discord=extra.get("discord_token") or None,
            max_jobs=extra.get("max_jobs") or None,
            timeout=_timeout(conn_id, extra.get("timeout")),
        )

    @property
    def submit_timeout(self) -> float:
        """Seconds a submit waits for its answer."""
        return max(SUBMIT_TIMEOUT, self.timeout)

    def redact(self, text: str) -> str:
        """Return the text without this connection's secrets: a server may echo what it was sent."""
        for secret in (self.token, self.discord):
            if secret:
                text = text.replace(secret, "***")
        return text


def _bad(conn_id: str, what: str) -> PikaRequestError:
    return PikaRequestError(f"The Airflow connection {conn_id!r} {what}. Nothing was sent.")


def _base_url(conn_id: str, conn: Connection) -> str:
    """Put host, schema and port together; the host may be a whole URL."""
    host = (conn.host or "").strip().rstrip("/")
    if not host and not conn.port:
        return DEFAULT_HOST
    url = host if "://" in host else f"{conn.schema or 'https'}://{host}"
    wanted = f"has no usable host ({host!r}): put a root URL like {DEFAULT_HOST} or http://127.0.0.1:8300 there"
    try:
        parts = urlsplit(url)
        port = parts.port or conn.port
    except ValueError:
        raise _bad(conn_id, wanted) from None
    name = parts.hostname or ""
    if parts.username or parts.password:
        raise _bad(conn_id, "has a user name or password within its host: the API token belongs into the password")
    if parts.scheme not in ("http", "https") or not name or parts.query or parts.fragment or set(name) & set(' "<>\\^`{|}'):
        raise _bad(conn_id, wanted)
    if ":" in name:
        name = f"[{name}]"
    return f"{parts.scheme}://{name}{f':{port}' if port else ''}{parts.path}"


def _timeout(conn_id: str, value: Any) -> float:
    if value is None or value == "":
        return READ_TIMEOUT
    try:
        timeout = float(value)
    except (TypeError, ValueError):
        timeout = 0.0
    if not 0 < timeout < float("inf"):
        raise _bad(conn_id, f"has an extra 'timeout' of {value!r}: it must be a number of seconds above 0")
    return timeout
