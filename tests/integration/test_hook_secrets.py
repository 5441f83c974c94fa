"""The token and the Discord token stay home: in no error, no repr, no log, whatever a server says back."""

from __future__ import annotations

import json
import logging
import re
import traceback
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, unquote

import pytest

from airflow_provider_pika.api.commands import ENCRYPT_TEXT
from airflow_provider_pika.exceptions import PikaError, PikaRequestError
from airflow_provider_pika.hooks.pika import PikaHook
from tests.support.hook_tools import ASKS, DISCORD, JOBID, TOKEN, connect, http, no_proxies, read, recorder, submit

SECRETS = (TOKEN, DISCORD)


def echo(status: int, wrap: Callable[[str], Any], **headers: str) -> Callable[[bytes], bytes]:
    """Make a server that says back all it was sent, the secrets among it."""

    def answer(request: bytes) -> bytes:
        said = wrap(f"{request.decode('utf-8', 'replace')} {TOKEN} {DISCORD}")
        return http(status, said.encode() if isinstance(said, str) else said, **headers)

    return answer


def percent(text: str) -> str:
    """Encode every byte, as no library does and any server may."""
    return "".join(f"%{byte:02x}" for byte in text.encode())


def escaped(text: str) -> str:
    """Escape every character for JSON."""
    return "".join(f"\\u{unit:04x}" for unit in memoryview(text.encode("utf-16-le")).cast("H"))


ECHOES = {
    "401 error": echo(401, lambda said: {"error": said}),
    "400 details": echo(400, lambda said: {"error": "E", "errorDetails": said}),
    "422 jobid": echo(422, lambda said: {"error": "E", "jobid": said}),
    "429 jobs": echo(429, lambda said: {"error": "E", "executingJobs": [said]}),
    "429 details": echo(429, lambda said: {"error": "E", "errorDetails": said}),
    "500 HTML": echo(500, lambda said: f"<html>{said}"),
    "200 HTML": echo(200, lambda said: f"<html>{said}"),
    "200 text": echo(200, lambda said: said),
    "200 cut": echo(200, lambda said: '{"error": ' + json.dumps(said)),
    "200 list": echo(200, lambda said: [said]),
    "200 job": echo(200, lambda said: {"jobid": JOBID, "status": "failed", "error": said, "content": said}),
    "407": echo(407, lambda said: f"<html>{said}"),
    "307 target": echo(307, lambda said: "", Location=f"http://127.0.0.1:1/?token={TOKEN}&discord={DISCORD}"),
    "307 quoted": echo(307, lambda said: "", Location=f"http://127.0.0.1:1/?token={TOKEN.replace(':', '%3A')}"),
    "400 percent": echo(400, lambda said: {"error": percent(said)}),
    "400 escaped": echo(400, lambda said: f'{{"error": "{escaped(said)}"}}'),
    "200 escaped": echo(200, lambda said: f'{{"jobid": "{JOBID}", "status": "failed", "error": "{escaped(said)}"}}'),
    "200 nested": echo(200, lambda said: {"jobid": JOBID, "status": "failed", "errorDetails": escaped(said)}),
    "429 header": echo(429, lambda said: {"error": "E"}, Retry_After=f"{TOKEN} {DISCORD}"),
    "302 header": echo(302, lambda said: "", Location=f"/?{quote(TOKEN + DISCORD, safe='')}"),
    "bad status line": lambda request: f"HTTP/1.1 {TOKEN} {DISCORD}\r\n\r\n".encode(),
    "bad length": lambda request: f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {TOKEN}\r\n\r\n".encode(),
    "bad chunk": lambda request: f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{TOKEN}\r\n".encode(),
}


def unescaped(text: str) -> str:
    """Undo what :func:`percent` and :func:`escaped` do, and the doubled backslashes of a ``repr``."""
    return re.sub(r"\\+u([0-9a-f]{4})", lambda found: chr(int(found[1], 16)), unquote(text))


def leaks(found: Any) -> list[str]:
    """Return which forms of a result hold a secret."""
    forms = {"repr": repr(found)}
    if isinstance(found, PikaError):
        forms["text"] = str(found)
        forms["attributes"] = repr(vars(found))
        forms["event"] = repr(found.to_event())
        forms["traceback"] = "".join(traceback.format_exception(found))
    return [name for name, text in forms.items() if any(secret in unescaped(text) for secret in SECRETS)]


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    no_proxies(monkeypatch)


@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize("row", ECHOES)
def test_a_server_that_says_the_secrets_back_puts_them_nowhere(
    row: str, ask: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO), recorder(ECHOES[row]) as server:
        connect(monkeypatch, server.url, discord_token=DISCORD, channel="1")
        found = ask()
        assert len(server.requests) == 1
    assert leaks(found) == []
    assert not any(secret in caplog.text for secret in SECRETS)


@pytest.mark.parametrize("row", ECHOES)
def test_a_discord_token_given_as_an_argument_is_said_back_nowhere_either(
    row: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO), recorder(ECHOES[row]) as server:
        connect(monkeypatch, server.url)
        found = submit(discord=DISCORD, channel="1")
        assert DISCORD.encode() in server.requests[0]
    assert leaks(found) == []
    assert not any(secret in caplog.text for secret in SECRETS)


def test_a_discord_token_given_as_an_argument_is_masked_in_airflows_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    masked: list[Any] = []
    monkeypatch.setattr("airflow.sdk.log.mask_secret", lambda secret, name=None: masked.append(secret))
    connect(monkeypatch, "http://127.0.0.1:9")
    PikaHook().prepare(ENCRYPT_TEXT, message="HI", prompt="waves", discord=DISCORD, channel="1")
    assert DISCORD in masked


@pytest.mark.parametrize("odd", ["\n", "\0", "é", "\ud83c"], ids=ascii)
def test_a_discord_argument_that_is_no_token_is_refused_without_being_quoted(
    odd: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(monkeypatch, "http://127.0.0.1:9")
    error = submit(discord=f"{DISCORD}{odd}", channel="1")
    assert type(error) is PikaRequestError
    assert "discord holds characters" in str(error)
    assert leaks(error) == []


@pytest.mark.parametrize("ask", ASKS)
def test_the_library_logs_of_a_debugging_person_hold_no_token(
    ask: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), recorder(http(200, {"jobid": JOBID, "status": "started"})) as server:
        connect(monkeypatch, server.url, discord_token=DISCORD, channel="1")
        ask()
    assert caplog.records
    assert not any(secret in caplog.text for secret in SECRETS)


def test_hook_and_settings_do_not_show_the_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, "http://127.0.0.1:9", discord_token=DISCORD, channel="1")
    hook = PikaHook()
    shown = f"{hook!r} {hook} {hook.settings!r}"
    assert not any(secret in shown for secret in SECRETS)


def test_both_secrets_are_masked_in_airflows_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    masked: list[Any] = []
    monkeypatch.setattr("airflow.sdk.log.mask_secret", lambda secret, name=None: masked.append(secret))
    connect(monkeypatch, "http://127.0.0.1:9", discord_token=DISCORD, channel="1")
    assert PikaHook().settings.token == TOKEN
    assert all(secret in masked for secret in SECRETS)


def test_the_discord_token_goes_out_only_in_a_submit(monkeypatch: pytest.MonkeyPatch) -> None:
    with recorder(http(200, {"jobid": JOBID, "status": "started"})) as server:
        connect(monkeypatch, server.url, discord_token=DISCORD, channel="1")
        hook = PikaHook()
        hook.get_job(JOBID)
        hook.cancel_job(JOBID)
        hook.encrypt_text(message="HI", prompt="waves")
        hook.get_conn().close()
    assert [DISCORD.encode() in request for request in server.requests] == [False, False, True]


def test_the_failed_connection_test_does_not_show_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    with recorder(ECHOES["401 error"]) as server:
        connect(monkeypatch, server.url)
        _, said = PikaHook().test_connection()
    assert TOKEN not in said


def test_half_a_secret_is_told_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a server says is cut to some length, and its secrets are taken out before that."""
    no_proxies(monkeypatch)
    for length in range(230, 300, 3):
        line = f"RUBBISH/1.1 {'x' * length}{TOKEN}\r\n\r\n".encode()
        with recorder(lambda _, line=line: line) as server:
            connect(monkeypatch, server.url)
            said = str(read("job"))
        assert TOKEN[:8] not in said, said
