"""An Airflow connection of type ``pika``, read and checked once."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_provider_pika.api.advice import Root
from airflow_provider_pika.api.commands import MAX_JOBS_LIMIT
from airflow_provider_pika.exceptions import PikaRequestError
from airflow_provider_pika.provider_info import DEFAULT_HOST

if TYPE_CHECKING:
    from airflow.sdk import Connection

# Source of the limits: the contract. The POST waits for the bot's first message.
CONNECT_TIMEOUT = 10.0
READ_TIMEOUT = 20.0
# No answer takes longer, and somewhere beyond it a socket takes no timeout at all.
LONGEST_TIMEOUT = 3600.0
SUBMIT_TIMEOUT = 60.0
# What comes on top of a submit's timeout before the whole call is given up: the time a body takes on a line of half a
# megabit, and an answer that drips.
UPLOAD_BYTES_PER_SECOND = 64 * 2**10
ANSWER_TIMEOUT = 30.0
_SHORTEST_SECRET = 5
# As the API calls them. Passed over in silence, jobs would go to any account, and Airflow shows a 'discord' in clear.
_MISNAMED = {"discord": "discord_token", "maxJobs": "max_jobs"}


@dataclass(frozen=True)
class PikaSettings:
    """
    What the hook needs of its connection. The secrets are kept out of ``repr``.

    :param base_url: root URL without a trailing slash
    :param conn_id: the connection's id, for messages
    :param timeout: seconds a read waits for its answer
    :param callback_url: the api-server's root as the service reaches it, without a trailing slash; None: nobody calls
    """

    base_url: str
    token: str = field(repr=False)
    channel: str | None = None
    discord: str | None = field(default=None, repr=False)
    max_jobs: int | None = None
    timeout: float = READ_TIMEOUT
    callback_url: str | None = None
    conn_id: str = ""

    @classmethod
    def from_connection(cls, conn_id: str, conn: Connection) -> PikaSettings:
        """
        Read a connection.

        :raises PikaRequestError: naming the connection and what to put where
        """
        extra = _extra(conn_id, conn)
        for name, ours in _MISNAMED.items():
            if name in extra:
                raise _bad(conn_id, f"has an extra {name!r}, by which nothing is read: call it {ours!r}")
        token = (conn.password or "").strip()
        if not token:
            raise _bad(conn_id, "has no API token: put it into the connection's password")
        for name, secret in (
            ("API token in its password", token),
            ("extra 'discord_token'", extra.get("discord_token")),
        ):
            if secret and not is_token(secret):
                raise _bad(conn_id, f"holds characters in the {name} that no token has: copy it anew")
        return cls(
            base_url=_base_url(conn_id, conn),
            token=token,
            channel=str(extra.get("channel") or "") or None,
            discord=extra.get("discord_token") or None,
            max_jobs=_max_jobs(conn_id, extra.get("max_jobs")),
            timeout=_timeout(conn_id, extra.get("timeout")),
            callback_url=_callback_url(conn_id, extra.get("callback_url")),
            conn_id=conn_id,
        )

    @property
    def root(self) -> Root:
        """Where the API is asked, as messages tell it."""
        return Root(self.base_url, self.conn_id)

    @property
    def submit_timeout(self) -> float:
        """Seconds a submit waits for its answer."""
        return max(SUBMIT_TIMEOUT, self.timeout)

    @property
    def read_limit(self) -> float:
        """Seconds after which a read is given up, whatever its answer still drips."""
        return CONNECT_TIMEOUT + self.timeout

    def submit_limit(self, length: int) -> float:
        """Seconds after which a submit with a body of so many bytes is given up."""
        return CONNECT_TIMEOUT + self.submit_timeout + length / UPLOAD_BYTES_PER_SECOND + ANSWER_TIMEOUT

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not be told of this connection."""
        return (self.token, self.discord) if self.discord else (self.token,)


def is_token(secret: object) -> bool:
    """Whether a secret holds only characters that a token has and a header can carry."""
    return isinstance(secret, str) and secret.isascii() and secret.isprintable()


def redact(text: str, secrets: Iterable[str]) -> str:
    """Return the text without the secrets, in whatever form a server echoes what it was sent."""
    for secret in secrets:
        # As Airflow's own masker does: what is shorter would tear jobids apart, and a lost jobid is a lost video.
        if len(secret) >= _SHORTEST_SECRET:
            text = _forms(secret).sub("***", text)
    return text


@lru_cache(maxsize=16)
def _forms(secret: str) -> re.Pattern[str]:
    """Match a secret as it is, percent-encoded or JSON-escaped, once or several times over, in part or whole."""
    return re.compile("".join(map(_forms_of_one, secret)))


def _forms_of_one(character: str) -> str:
    # So many and no more: a server's text of backslashes alone would keep the pattern busy for seconds.
    plain = re.escape(character) if character.isalnum() else rf"\\{{0,15}}{re.escape(character)}"
    percent = "".join(f"%(?:25){{0,8}}{byte:02x}" for byte in character.encode("utf-8", "surrogatepass"))
    units = character.encode("utf-16-be", "surrogatepass").hex()
    escaped = "".join(rf"\\{{1,15}}u{units[at : at + 4]}" for at in range(0, len(units), 4))
    return f"(?:{plain}|(?i:{percent}|{escaped}))"


def _extra(conn_id: str, conn: Connection) -> dict[str, Any]:
    """Read the extra. Airflow hands one that is no JSON on as an empty one, and jobs would go to any account."""
    extra: Any = conn.extra_dejson
    if not extra and conn.extra:
        try:
            extra = json.loads(conn.extra)
        except ValueError:
            extra = None
    if not isinstance(extra, dict):
        raise _bad(conn_id, 'has an extra that is no JSON object: write it as {"channel": "…"}')
    return extra


def _bad(conn_id: str, what: str) -> PikaRequestError:
    return PikaRequestError(f"The Airflow connection {conn_id!r} {what}. Nothing was sent.")


def _base_url(conn_id: str, conn: Connection) -> str:
    """Put host, schema and port together; the host may be a whole URL."""
    host = (conn.host or "").strip()
    if not host and not conn.port:
        return DEFAULT_HOST
    # The host is not quoted: who puts the token there by mistake must not read it in a log.
    wanted = f"has no usable host: put a root URL like {DEFAULT_HOST} or http://127.0.0.1:8300 there"
    try:
        parts = urlsplit(host if "://" in host else f"{conn.schema or 'https'}://{host}")
        port = parts.port or conn.port or None
    except ValueError:
        raise _bad(conn_id, wanted) from None
    if port is not None and not 1 <= port <= 65535:
        raise _bad(conn_id, wanted)
    name = parts.hostname or ""
    if parts.username or parts.password:
        raise _bad(conn_id, "has a user name or password within its host: the API token belongs into the password")
    if (
        parts.scheme not in ("http", "https")
        or not name
        or parts.query
        or parts.fragment
        or set(name) & set(' "<>\\^`{|}')
    ):
        raise _bad(conn_id, wanted)
    if ":" in name:
        name = f"[{name}]"
    return f"{parts.scheme}://{name}{f':{port}' if port else ''}{parts.path.rstrip('/')}"


def _max_jobs(conn_id: str, value: Any) -> int | None:
    if value is None or value == "":
        return None
    try:
        number = 0 if isinstance(value, (bool, float)) else int(value)
    except (TypeError, ValueError):
        number = 0
    if not 1 <= number <= MAX_JOBS_LIMIT:
        raise _bad(
            conn_id, f"has an extra 'max_jobs' of {value!r}: it must be a whole number from 1 to {MAX_JOBS_LIMIT}"
        )
    return number


def _timeout(conn_id: str, value: Any) -> float:
    if value is None or value == "":
        return READ_TIMEOUT
    try:
        timeout = float(value)
    except (TypeError, ValueError):
        timeout = 0.0
    if not 0 < timeout <= LONGEST_TIMEOUT:
        raise _bad(
            conn_id,
            f"has an extra 'timeout' of {value!r}: it must be a number of seconds above 0, at most {LONGEST_TIMEOUT:g}",
        )
    return timeout


def _callback_url(conn_id: str, value: Any) -> str | None:
    """Read the api-server's root; a path is one that a proxy or ``[api] base_url`` puts before Airflow's routes."""
    text = str(value or "").strip()
    if not text:
        return None
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    # Asked of the text itself: urlsplit passes over a line break as if it were not there.
    whole = text.isascii() and text.isprintable() and not set(text) & set('?#"<>\\^`{|}@ ')
    if not usable or not whole:
        # Not quoted: a token put there by mistake must not be read in a log.
        raise _bad(
            conn_id,
            "has no usable extra 'callback_url': put the root URL of Airflow's api-server there, as the service reaches"
            " it, like https://airflow.example.com",
        )
    return text.rstrip("/")
