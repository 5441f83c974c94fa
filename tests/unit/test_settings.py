"""Reading the Airflow connection."""

from __future__ import annotations

import json
import traceback
from typing import Any
from urllib.parse import quote

import pytest
from airflow.sdk import Connection

from airflow_provider_pika.exceptions import PikaRequestError
from airflow_provider_pika.hooks.settings import PikaSettings, redact

TOKEN = "user:1000-s3cretTOKEN"
DISCORD = "MTE.d1scord-S3CRET"


def read(**about: Any) -> PikaSettings:
    about.setdefault("password", TOKEN)
    extra = about.pop("extra", None)
    if extra is not None and not isinstance(extra, str):
        extra = json.dumps(extra)
    return PikaSettings.from_connection(
        "my_pika", Connection(conn_id="my_pika", conn_type="pika", extra=extra, **about)
    )


@pytest.mark.parametrize(
    ("about", "url"),
    [
        ({}, "https://api.useapi.net"),
        ({"host": ""}, "https://api.useapi.net"),
        ({"host": "  "}, "https://api.useapi.net"),
        ({"host": "api.useapi.net"}, "https://api.useapi.net"),
        ({"host": "https://api.useapi.net/"}, "https://api.useapi.net"),
        ({"host": " https://api.useapi.net// "}, "https://api.useapi.net"),
        ({"host": "http://127.0.0.1:8300"}, "http://127.0.0.1:8300"),
        ({"host": "http://127.0.0.1", "port": 8300}, "http://127.0.0.1:8300"),
        ({"host": "127.0.0.1", "schema": "http", "port": 8300}, "http://127.0.0.1:8300"),
        ({"host": "127.0.0.1:8300", "schema": "http"}, "http://127.0.0.1:8300"),
        ({"host": "localhost", "port": 8443}, "https://localhost:8443"),
        ({"host": "http://127.0.0.1:8300", "port": 9}, "http://127.0.0.1:8300"),
        ({"host": "http://127.0.0.1:8300", "schema": "https"}, "http://127.0.0.1:8300"),
        ({"host": "localhost", "schema": "HTTP"}, "http://localhost"),
        ({"host": "HTTP://LocalHost:80"}, "http://localhost:80"),
        ({"host": "gate.example/pika/root/"}, "https://gate.example/pika/root"),
        ({"host": "http://[::1]:8300"}, "http://[::1]:8300"),
        ({"host": "[::1]", "port": 8300, "schema": "http"}, "http://[::1]:8300"),
    ],
    ids=str,
)
def test_host_schema_and_port_make_the_root_url(about: dict[str, Any], url: str) -> None:
    assert read(**about).base_url == url


@pytest.mark.parametrize(
    "about",
    [
        {"host": "ftp://127.0.0.1"},
        {"host": "127.0.0.1", "schema": "ftp"},
        {"host": "http://"},
        {"host": "http:///path"},
        {"host": "/"},
        {"host": "not a host"},
        {"host": "http://a b"},
        {"host": "<html>"},
        {"host": 'ho"st'},
        {"host": "{{ host }}"},
        {"host": "http://127.0.0.1:x"},
        {"host": "http://127.0.0.1:99999"},
        {"host": "127.0.0.1", "port": 99_999},
        {"host": "127.0.0.1", "port": -1},
        {"host": "http://[::1"},
        {"host": "https://api.useapi.net?x=1"},
        {"host": "https://api.useapi.net#x"},
        {"port": 8300, "schema": "http"},
    ],
    ids=str,
)
def test_a_host_that_makes_no_sense_is_refused_with_the_connection_and_an_example(about: dict[str, Any]) -> None:
    with pytest.raises(
        PikaRequestError, match=r"'my_pika' .*(https://api\.useapi\.net|http://127\.0\.0\.1:8300).*Nothing was sent"
    ):
        read(**about)


@pytest.mark.parametrize(
    "host", [f"https://{TOKEN}@api.useapi.net", f"https://user:{TOKEN}@api.useapi.net", f"https://:{TOKEN}@h:1"]
)
def test_a_password_within_the_host_is_refused_with_where_it_belongs(host: str) -> None:
    with pytest.raises(PikaRequestError, match=r"'my_pika' .*API token belongs into the password") as caught:
        read(host=host)
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("host", [f"https://{TOKEN}@api.useapi.net:x", f"https://{TOKEN}@a b", f"ftp://{TOKEN}"])
def test_a_nonsense_host_is_not_quoted_with_the_token_in_it(host: str) -> None:
    with pytest.raises(PikaRequestError) as caught:
        read(host=host)
    assert TOKEN not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("password", [None, "", "  ", "\n"])
def test_a_missing_token_is_refused_with_where_to_put_it(password: str | None) -> None:
    with pytest.raises(PikaRequestError, match=r"'my_pika' has no API token: put it into the connection's password"):
        read(password=password)


@pytest.mark.parametrize("password", [TOKEN, f"{TOKEN}\n", f"  {TOKEN} \r\n"])
def test_a_token_copied_with_space_around_it_is_taken_without(password: str) -> None:
    assert read(password=password).token == TOKEN


@pytest.mark.parametrize("odd", ["\n", "\r\n", "\0", "é", "\u200b", "\x7f"])
@pytest.mark.parametrize("where", ["password", "discord_token"])
def test_a_secret_no_header_can_carry_is_refused_without_being_quoted(where: str, odd: str) -> None:
    secret = f"{TOKEN[:8]}{odd}{TOKEN[8:]}"
    about: dict[str, Any] = {"password": secret} if where == "password" else {"extra": {"discord_token": secret}}
    with pytest.raises(PikaRequestError, match="'my_pika' holds characters") as caught:
        read(**about)
    assert TOKEN[8:] not in str(caught.value)
    assert where in str(caught.value)


def test_a_discord_token_that_is_no_text_is_refused() -> None:
    with pytest.raises(PikaRequestError, match=r"'my_pika' .*discord_token"):
        read(extra={"discord_token": 12345})


def test_the_extras_are_read() -> None:
    settings = read(extra={"channel": "123", "discord_token": DISCORD, "max_jobs": 3, "timeout": 5})
    assert (settings.channel, settings.discord, settings.max_jobs, settings.timeout) == ("123", DISCORD, 3, 5.0)


@pytest.mark.parametrize(
    "extra", [None, "", {}, {"channel": "", "discord_token": "", "max_jobs": None, "timeout": ""}, {"other": 1}]
)
def test_extras_left_empty_are_as_if_not_given(extra: Any) -> None:
    settings = read(extra=extra)
    assert (settings.channel, settings.discord, settings.max_jobs, settings.timeout) == (None, None, None, 20.0)


@pytest.mark.parametrize("extra", ["[1, 2]", '"text"', "7", "channel=42"])
def test_an_extra_that_is_no_object_is_refused_with_the_connection(extra: str) -> None:
    with pytest.raises(PikaRequestError, match="'my_pika'"):
        read(extra=extra)


@pytest.mark.parametrize(("given", "seconds"), [(5, 5.0), ("5", 5.0), (0.5, 0.5), (90, 90.0)])
def test_the_read_timeout_is_a_number_or_a_text_of_one(given: object, seconds: float) -> None:
    assert read(extra={"timeout": given}).timeout == seconds


@pytest.mark.parametrize("given", [0, -1, "soon", "nan", "inf", [5], {}, "-3", 1e12])
def test_a_timeout_that_is_no_number_above_0_is_refused(given: object) -> None:
    with pytest.raises(PikaRequestError, match=r"'my_pika' has an extra 'timeout' of .*a number of seconds above 0"):
        read(extra={"timeout": given})


@pytest.mark.parametrize(("timeout", "submit"), [(1, 60), (20, 60), (60, 60), (90, 90)])
def test_a_submit_waits_at_least_60_s(timeout: float, submit: float) -> None:
    assert read(extra={"timeout": timeout}).submit_timeout == submit


@pytest.mark.parametrize("given", [0, "0", 11, "three"])
def test_a_max_jobs_out_of_range_is_not_silently_left_out(given: object) -> None:
    """The channel would run ten jobs instead."""
    with pytest.raises(PikaRequestError, match="max_jobs"):
        read(extra={"max_jobs": given})


@pytest.mark.parametrize(("theirs", "ours"), [("discord", "discord_token"), ("maxJobs", "max_jobs")])
def test_an_extra_by_the_apis_own_name_is_not_passed_over(theirs: str, ours: str) -> None:
    """Jobs would go to any account, and Airflow shows a 'discord' in clear."""
    with pytest.raises(PikaRequestError, match=f"'my_pika' has an extra '{theirs}', .* call it '{ours}'") as refused:
        read(extra={theirs: "secret"})
    assert "secret" not in str(refused.value)


def test_the_repr_holds_no_secret() -> None:
    settings = read(extra={"discord_token": DISCORD, "channel": "1"})
    assert TOKEN not in f"{settings!r} {settings}"
    assert DISCORD not in f"{settings!r} {settings}"


def test_redacting_takes_both_secrets_out_of_a_text() -> None:
    secrets = read(extra={"discord_token": DISCORD, "channel": "1"}).secrets
    assert redact(f"a {TOKEN} b {DISCORD} c {TOKEN}", secrets) == "a *** b *** c ***"


def test_without_a_discord_token_the_api_token_is_the_only_secret() -> None:
    assert read().secrets == (TOKEN,)


ODD = 'user:1/a b"c\\d+e%f.g-h_'


@pytest.mark.parametrize(
    "echo",
    [
        quote(ODD, safe=""),
        quote(ODD),
        quote(ODD, safe="").lower(),
        quote(quote(ODD, safe=""), safe=""),
        json.dumps(ODD)[1:-1],
        json.dumps(json.dumps(ODD))[1:-1].replace('\\"', "", 1)[:-2],
        json.dumps(ODD)[1:-1].replace("/", "\\/"),
        "".join(f"\\u{ord(each):04x}" for each in ODD),
        "".join(f"\\u{ord(each):04X}" for each in ODD),
        ODD.replace(":", "\\u003a"),
        "".join(f"%{ord(each):02X}" for each in ODD),
    ],
)
def test_a_secret_is_found_in_whatever_form_it_comes_back(echo: str) -> None:
    assert redact(f"<{echo}>", [ODD]) == "<***>"


@pytest.mark.parametrize("text", ["a b", "user:1000", "USER:1000-S3CRETTOKEN", "\\", "%3A", "<MTE…secured…RET>"])
def test_redacting_changes_nothing_else(text: str) -> None:
    assert redact(text, [TOKEN, DISCORD]) == text


def test_json_stays_json_without_its_secrets() -> None:
    text = json.dumps({"a": f'"{ODD}"\\', "b": [ODD], "c": json.dumps(ODD)})
    assert json.loads(redact(text, [ODD])) == {"a": '"***"\\', "b": ["***"], "c": '"***"'}


def test_a_secret_too_short_to_be_one_does_not_tear_a_jobid_apart() -> None:
    assert redact("job:2024-user:13", ["2", "13"]) == "job:2024-user:13"


@pytest.mark.parametrize("uri", ["pika://:{}@127.0.0.1:8300/http", "pika://:{}@http%3A%2F%2F127.0.0.1%3A8300"])
def test_a_connection_given_as_a_uri_is_read(uri: str) -> None:
    connection = Connection.from_uri(uri.format(TOKEN.replace(":", "%3A")), conn_id="my_pika")
    settings = PikaSettings.from_connection("my_pika", connection)
    assert (settings.base_url, settings.token) == ("http://127.0.0.1:8300", TOKEN)


@pytest.mark.parametrize(
    ("given", "url"),
    [
        (None, None),
        ("", None),
        ("  ", None),
        ("https://airflow.example", "https://airflow.example"),
        (" http://127.0.0.1:8080/ ", "http://127.0.0.1:8080"),
        ("https://airflow.example/behind/a/proxy/", "https://airflow.example/behind/a/proxy"),
    ],
)
def test_the_callback_url_is_a_root_url_without_its_last_slash(given: object, url: str | None) -> None:
    assert read(extra={"callback_url": given}).callback_url == url


@pytest.mark.parametrize(
    "given",
    ["airflow.example", "ftp://airflow.example", "https://", "https://a?x=1", "https://a#b", "https://u:p@a", "https://a:x",
     "https://a:99999", "https://a b", 5, "{{ url }}", "https://a:0", "https://a\nb", "https://a/\tb", "https://a\0",
     "https://ä.example", "https://a/\x7f"],
    ids=repr,
)  # fmt: skip
def test_a_callback_url_the_service_cannot_call_is_refused(given: object) -> None:
    with pytest.raises(
        PikaRequestError, match=r"'my_pika' has no usable extra 'callback_url': .*Nothing was sent"
    ) as caught:
        read(extra={"callback_url": given})
    assert str(given) not in str(caught.value).replace("https://airflow.example.com", "")
