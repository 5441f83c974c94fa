"""Plain HTTP to anybody but the API: its token is not known here, so it cannot go astray."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_pika import USER_AGENT
from airflow_provider_pika.files.storage import clean

if TYPE_CHECKING:
    import requests

CONNECT_TIMEOUT = 10.0
# Between two pieces of a body.
READ_TIMEOUT = 60.0
CHUNK = 2**16


def plain_session() -> requests.Session:
    """Return a session without credentials but those written in a URL: none of a connection, none of a ``.netrc``."""
    import requests

    session = requests.Session()
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
