"""Sending a call and bringing its answer.

A call is sent once, and has an end whatever hangs; only a connection that was never made is tried again, and that only
for a read. No redirect is followed, because a 307 would send the body, and the Discord token in it, to another host.
What comes back is freed of the secrets before anybody reads it: a server may echo what it was sent.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from airflow_provider_pika import USER_AGENT
from airflow_provider_pika.api import commands, errors
from airflow_provider_pika.api.answers import Answer
from airflow_provider_pika.api.callback import hide_token
from airflow_provider_pika.hooks.settings import CONNECT_TIMEOUT, PikaSettings, redact

if TYPE_CHECKING:
    from collections.abc import Callable

    import requests

    from airflow_provider_pika.files.multipart import ImagePart, MultipartBody

# A server's bad status line may be as long as it likes.
_EXCERPT = 300


class Transport:
    """One ``requests`` session, kept alive; several threads may send through it at the same time."""

    def __init__(self, settings: PikaSettings) -> None:
        self._settings = settings
        # Those of the connection, and Discord tokens given with a call: any later answer may echo them.
        self._secrets: tuple[str, ...] = settings.secrets
        # A handler of SIGTERM cancels the job through this very transport, whatever the main thread is at.
        self._lock = threading.RLock()
        self._session: requests.Session | None = None

    @property
    def session(self) -> requests.Session:
        """The authorized session."""
        with self._lock:
            if self._session is None:
                self._session = self._new_session()
            return self._session

    def _new_session(self) -> requests.Session:
        import requests
        from urllib3.util import Retry

        from airflow_provider_pika.hooks.exchange import HeldAdapter

        session = requests.Session()
        session.headers["User-Agent"] = USER_AGENT
        # On the session rather than as a header: requests lets a .netrc entry replace a mere header.
        session.auth = self._authorize
        reads = Retry(total=None, connect=1, read=0, redirect=0, status=0, other=0, backoff_factor=0.5)
        session.mount(self._settings.base_url, HeldAdapter(max_retries=reads))
        for command in commands.COMMANDS.values():
            session.mount(f"{self._settings.base_url}{command.path}", HeldAdapter(max_retries=0))
        return session

    def _authorize(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._settings.token}"
        return request

    def send(
        self,
        call: commands.Call,
        files: Mapping[str, ImagePart] | None = None,
        *,
        before_body: Callable[[], None] | None = None,
        after_body: Callable[[], None] | None = None,
    ) -> Answer:
        """
        Send a call and return its answer, whatever its status.

        :param before_body: called just before the first byte of a submit's body leaves, see :meth:`PikaHook.send`
        :param after_body: called when the last byte of the body has been handed over
        :raises PikaUnavailableError: when no answer came and no job can have been made
        :raises PikaUnknownOutcomeError: when the answer to a submit was lost
        """
        from airflow_provider_pika.files.multipart import MultipartBody, NotSentError
        from airflow_provider_pika.hooks.exchange import Exchange, TooSlowError

        discord = call.fields.get("discord") or (call.json or {}).get("discord")
        if discord and discord not in self._secrets:
            self._secrets = (*self._secrets, str(discord))
        body = None
        limit = self._settings.read_limit
        if call.is_submit:
            body = MultipartBody(call.fields, files or {}, before_body=before_body, after_body=after_body)
            limit = self._settings.submit_limit(len(body))
        session = self.session
        exchange = Exchange(lambda: self._exchange(session, call, body))
        try:
            return exchange.within(limit)
        except NotSentError as held_back:
            if held_back.refusal is None:
                raise
            raise held_back.refusal from held_back.refusal.__cause__
        except TooSlowError as error:
            with self._lock:
                # Its connections may hang as this one does.
                self._session = None
            left = body.stop() if body else exchange.connected
            raise errors.lost(call, self._settings.root, str(error), left=left) from None
        finally:
            # Whatever ended the wait, a signal's handler too: what has not left by now never leaves.
            if body:
                body.stop()

    def _exchange(self, session: requests.Session, call: commands.Call, body: MultipartBody | None) -> Answer:
        import requests
        from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError

        settings = self._settings
        url = settings.base_url + call.target
        response = None
        try:
            response = session.request(
                call.method,
                url,
                data=body,
                json=call.json,
                headers=body.headers if body else None,
                timeout=(CONNECT_TIMEOUT, settings.submit_timeout if body else settings.timeout),
                allow_redirects=False,
                stream=True,
            )
            content = response.content
        # Not all of what goes wrong is a RequestException: a missing CA bundle is an OSError, a host name that leads
        # nowhere a LocationParseError.
        except (requests.RequestException, HTTPError, OSError, ValueError) as error:
            reason = getattr(error.args[0] if error.args else None, "reason", None)
            never_met = (requests.ConnectTimeout, requests.exceptions.SSLError, requests.exceptions.ProxyError)
            connected = not isinstance(error, never_met) and not isinstance(
                reason, (NewConnectionError, ConnectTimeoutError)
            )
            # "from None": the library's own text may quote a secret that the server echoed.
            raise errors.lost(
                call,
                settings.root,
                _told(_without_secrets(_words(error), self._secrets)),
                left=body.started if body else connected and isinstance(error, requests.RequestException),
                cut=response is not None,
            ) from None
        finally:
            if response is not None:
                response.close()
        return _answer(self._secrets, response.status_code, response.headers.items(), content)


def _words(error: Exception) -> str:
    """Return what went wrong on the way, in the words of the system or of the protocol."""
    import requests

    from airflow_provider_pika.files.web import root_words

    said = root_words(error)
    if isinstance(error, requests.ConnectTimeout):
        return f"no connection within {CONNECT_TIMEOUT:g} s"
    if isinstance(error, requests.exceptions.ProxyError):
        return f"the proxy: {said}"
    return said


def _told(text: str) -> str:
    # Shortened only now that it is freed of the secrets: the half of one would be known by nobody.
    return " ".join(text.split())[:_EXCERPT]


def _answer(secrets: tuple[str, ...], status: int, headers: Iterable[tuple[str, str]], content: bytes) -> Answer:
    return Answer(
        status,
        {name.lower(): _without_secrets(value, secrets) for name, value in headers},
        _without_secrets(content.decode("utf-8", "replace"), secrets),
    )


def _without_secrets(text: str, secrets: Iterable[str]) -> str:
    return hide_token(redact(text, secrets))
