"""What an image is taken for, and what of its URL may be told."""

from __future__ import annotations

import pytest
import requests

from airflow_provider_pika.files import storage, web
from airflow_provider_pika.files.image import image_type

PNG = b"\x89PNG\r\n\x1a\n..."


@pytest.mark.parametrize(
    ("name", "head", "told", "expected"),
    [
        ("a", PNG, None, "image/png"),
        ("a", b"\xff\xd8\xff\xe0", None, "image/jpeg"),
        ("a", b"GIF89a", None, "image/gif"),
        ("a", b"RIFF\x10\0\0\0WEBPVP8 ", None, "image/webp"),
        ("a", b"BM\x10\0\0\0\0\0\0\0", None, "image/bmp"),
        # The bytes know better than the name and the server.
        ("a.png", b"\xff\xd8\xff\xe0", "image/gif", "image/jpeg"),
        ("a.txt", PNG, None, "image/png"),
        # Where they say nothing, the name does, then the server.
        ("a.PNG", b"pixels", None, "image/png"),
        ("a.webp", b"pixels", None, "image/webp"),
        ("a", b"pixels", "image/avif", "image/avif"),
        ("a.txt", b"pixels", None, None),
        ("a.mp4", b"pixels", "video/mp4", None),
        ("a", b"pixels", None, None),
        # An error page under the name of a picture.
        ("a.png", b"  <!DOCTYPE html><html>", "image/png", None),
        ("a.png", b"<HTML>", None, None),
    ],
)
def test_the_type_comes_from_the_bytes_the_name_or_the_server(name, head, told, expected):
    assert image_type(name, head, told) == expected


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:hush@host/a.png?sig=hush#x", "https://host/a.png?…"),
        ("https://hush@host/a.png", "https://host/a.png"),
        ("s3://conn@bucket/a.png", "s3://conn@bucket/a.png"),
        ("s3://key:hush@bucket/a.png", "s3://key:***@bucket/a.png"),
        (
            "Max retries exceeded with url: /a?sig=hush (Caused by x)",
            "Max retries exceeded with url: /a?… (Caused by x)",
        ),
    ],
)
def test_credentials_of_a_url_are_left_out(text, shown):
    assert storage.clean(text) == shown


def test_a_failed_request_is_worded_by_its_root_and_without_its_query():
    with pytest.raises(requests.RequestException) as failed:
        requests.get("http://me:hush@127.0.0.1:1/a?sig=hush", timeout=5)

    assert "refused" in web.reason(failed.value)
    assert "hush" not in web.reason(failed.value)


def test_the_plain_session_takes_a_password_from_a_url_only(tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("default login a password b")
    monkeypatch.setenv("NETRC", str(netrc))
    session = web.plain_session()

    assert "Authorization" not in session.prepare_request(requests.Request("GET", "http://host/")).headers
    assert "Authorization" in session.prepare_request(requests.Request("GET", "http://me:you@host/")).headers
