"""Plain HTTP to anybody but the API: its token is not known here, so it cannot go astray."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from airflow_provider_pika import USER_AGENT
from airflow_provider_pika.files.storage import clean

if TYPE_CHECKING:
    import requests

CONNECT_TIMEOUT = 10.0
# Between two pieces of a body.
READ_TIMEOUT = 60.0
CHUNK = 2**16
# What a body must bring a minute: one that trickles would hold its worker for ever, a byte every half minute.
LEAST_A_MINUTE = 2**18
_MINUTE = 60.0


def plain_session() -> requests.Session:
    """Return a session without credentials but those written in a URL: none of a connection, none of a ``.netrc``."""
    import requests

    class Plain(requests.Session):
        def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
            # On a redirect a session looks into the .netrc all the same: whoever redirects would choose the host.
            asked: tuple[Any, Any] = (response.request.url, prepared_request.url)
            if self.should_strip_auth(*asked):  # type: ignore[no-untyped-call]
                prepared_request.headers.pop("Authorization", None)

    session = Plain()
    session.headers["User-Agent"] = USER_AGENT
    # Compressed, a body would have another length than the one announced.
    session.headers["Accept-Encoding"] = "identity"
    # With an auth of its own a session does not look into the .netrc.
    session.auth = _of_the_url
    return session


def _of_the_url(request: requests.PreparedRequest) -> requests.PreparedRequest:
    from requests.auth import HTTPBasicAuth
    from requests.utils import get_auth_from_url

    user, password = get_auth_from_url(str(request.url))
    return HTTPBasicAuth(user, password)(request) if user or password else request


def pieces(response: requests.Response) -> Iterator[bytes]:
    """
    Yield a body in pieces, as it comes.

    :raises requests.RequestException: when it breaks off, stalls, or brings less than ``LEAST_A_MINUTE``
    """
    import requests
    import urllib3

    waited, brought = 0.0, 0
    while True:
        began = time.monotonic()
        try:
            # What there is: a whole chunk may be long in coming.
            piece = response.raw.read1(CHUNK, decode_content=True)
        except urllib3.exceptions.HTTPError as error:
            raise requests.ConnectionError(error) from error
        # Without the time in which a store takes what has come: that is not the server's.
        waited += time.monotonic() - began
        if not piece:
            return
        brought += len(piece)
        if waited >= _MINUTE:
            if brought < LEAST_A_MINUTE:
                raise requests.Timeout(f"only {brought:,} bytes came in a minute")
            waited, brought = 0.0, 0
        yield piece


def reason(error: Exception) -> str:
    """Return the root cause of a failed request, without the secrets of the URL that was asked."""
    return clean(f"{type(error).__name__}: {root_words(error)}")[:300]


def root_words(error: BaseException) -> str:
    """Return what the innermost error says: those around it quote objects, and bury "Connection refused" in them."""
    from http.client import BadStatusLine

    root = error
    while True:
        cause = getattr(root, "reason", None) or next((a for a in root.args if isinstance(a, BaseException)), None)
        deeper = cause if isinstance(cause, BaseException) else root.__cause__ or root.__context__
        if deeper is None or deeper is root:
            break
        root = deeper
    # Of a file error the whole text, which names the file.
    said = (not getattr(root, "filename", None) and getattr(root, "strerror", None)) or str(root)
    # Its text is the line itself; a server that hung up, which is a kind of it, is told in words.
    if type(root) is BadStatusLine:
        return f"no HTTP: {said}"
    return said or type(root).__name__
