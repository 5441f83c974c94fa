"""The reference image from wherever it lies: it arrives whole, or is refused before anything is paid for."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path

import fsspec
import pytest

from airflow_provider_pika.api.errors import is_retryable
from airflow_provider_pika.compat import AirflowFailException
from airflow_provider_pika.emulator.client import EmulatorClient
from airflow_provider_pika.exceptions import PikaError, PikaRequestError, PikaUnavailableError
from airflow_provider_pika.files import web
from airflow_provider_pika.files.image import open_image
from airflow_provider_pika.hooks.pika import PikaHook
from airflow_provider_pika.operators.pika import EncryptTextOperator
from tests.support.task_files import reply, trickle, web_server

PNG = b"\x89PNG\r\n\x1a\n" + bytes(1000)
SECRET = "hush-hush-hush-hush"


def submit(emulator: EmulatorClient, image: str, **hook) -> dict:
    """Submit with an image, and return what the API saw of it."""
    job = PikaHook(**hook).encrypt_text(message="HI", prompt="waves", image=image)
    assert emulator.counters()["token_leaks"] == 0
    return job.raw["image"]


def refused(emulator: EmulatorClient, image: str, kind: type[PikaError] = PikaRequestError, **hook) -> str:
    """Submit with an image that must be refused, and return the words."""
    with pytest.raises(kind) as error:
        submit(emulator, image, **hook)
    assert "Nothing was sent." in str(error.value)
    assert emulator.counters()["submits"]["asked"] == 0, "something was sent all the same"
    assert SECRET not in str(error.value)
    return str(error.value)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "ref erence.png"
    path.write_bytes(PNG)
    return path


@pytest.fixture
def bucket():
    """An object store in memory."""
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/pics/ref.png", PNG)
    fs.pipe_file("/pics/empty.png", b"")
    yield "memory://pics"
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]


def test_local_paths_and_file_urls(pika_emulator: EmulatorClient, picture: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(picture.parent)
    for image in (str(picture), picture.name, f"file://{picture}", picture.as_uri(), f"file://localhost{picture}"):
        assert submit(pika_emulator, image) == {"size": len(PNG), "type": "image/png"}


def test_an_object_store(pika_emulator: EmulatorClient, bucket: str):
    assert submit(pika_emulator, f"{bucket}/ref.png") == {"size": len(PNG), "type": "image/png"}


def test_a_web_address_without_a_telling_name_follows_redirects_and_gets_no_token(pika_emulator: EmulatorClient):
    seen = []

    def answer(handler):
        seen.append((handler.path, handler.headers.get("Authorization")))
        if handler.path == "/start":
            return reply(handler, 302, Location="/picture?size=1")
        return reply(handler, 200, PNG, Content_Type="application/octet-stream")

    with web_server(answer) as url:
        assert submit(pika_emulator, f"{url}/start") == {"size": len(PNG), "type": "image/png"}

    assert seen == [("/start", None), ("/picture?size=1", None)]


def test_a_user_and_password_in_a_web_address_are_used_and_not_told(pika_emulator: EmulatorClient):
    def answer(handler):
        if handler.headers.get("Authorization", "").startswith("Basic "):
            return reply(handler, 404)
        return reply(handler, 401)

    with web_server(answer) as url:
        said = refused(pika_emulator, url.replace("//", f"//me:{SECRET}@") + f"/a.png?sig={SECRET}")

    assert "HTTP 404" in said
    assert "/a.png" in said


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.png", b"", "is empty (0 bytes)"),
        ("notes.txt", b"just words", "no image"),
        ("page.png", b"<!doctype html><p>sorry", "no image"),
        ("film.mp4", b"\0\0\0\x18ftypmp42", "no image"),
    ],
)
def test_what_is_no_image_is_refused(
    pika_emulator: EmulatorClient, tmp_path: Path, name: str, content: bytes, said: str
):
    path = tmp_path / name
    path.write_bytes(content)

    words = refused(pika_emulator, str(path))

    assert said in words
    assert str(path) in words


def test_what_cannot_be_opened_is_refused(pika_emulator: EmulatorClient, tmp_path: Path, bucket: str):
    assert "is a folder" in refused(pika_emulator, str(tmp_path))
    assert "is a folder" in refused(pika_emulator, bucket)
    assert "No such file" in refused(pika_emulator, str(tmp_path / "gone.png"))
    assert "No such file" in refused(pika_emulator, f"file://{tmp_path}/gone.png")
    assert "does not exist" in refused(pika_emulator, f"{bucket}/gone.png")
    assert "is empty" in refused(pika_emulator, f"{bucket}/empty.png")
    assert "nosuchstore" in refused(pika_emulator, "nosuchstore://bucket/a.png")
    assert "no-such-conn" in refused(pika_emulator, "file2://no-such-conn@bucket/a.png")
    assert "cannot be" in refused(pika_emulator, "http://[broken/a.png")


def test_an_unreadable_bucket_is_refused(pika_emulator: EmulatorClient, bucket: str, monkeypatch: pytest.MonkeyPatch):
    def denied(self, path, **_):
        raise PermissionError(13, f"Access Denied for https://store/{path}?sig={SECRET}")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "info", denied)

    assert "Access Denied" in refused(pika_emulator, f"{bucket}/ref.png")


def test_a_store_that_fails_in_passing_may_be_tried_again(
    pika_emulator: EmulatorClient, bucket: str, monkeypatch: pytest.MonkeyPatch
):
    def failing(self, path, **_):
        raise ConnectionResetError(104, "Connection reset by peer")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "info", failing)

    assert "reset" in refused(pika_emulator, f"{bucket}/ref.png", PikaUnavailableError)


@pytest.mark.parametrize("status", [400, 403, 404, 410, 204])
def test_a_web_server_that_refuses(pika_emulator: EmulatorClient, status: int):
    with web_server(lambda handler: reply(handler, status)) as url:
        assert f"HTTP {status}" in refused(pika_emulator, f"{url}/a.png?signature={SECRET}")


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_web_server_in_trouble_may_be_asked_again(pika_emulator: EmulatorClient, status: int):
    with web_server(lambda handler: reply(handler, status)) as url:
        assert f"HTTP {status}" in refused(pika_emulator, f"{url}/a.png?signature={SECRET}", PikaUnavailableError)


def test_a_web_page_instead_of_a_picture(pika_emulator: EmulatorClient):
    with web_server(lambda handler: reply(handler, 200, b"<p>hello", Content_Type="text/html; charset=utf-8")) as url:
        assert "web page" in refused(pika_emulator, f"{url}/a.png")


def test_a_server_that_is_not_there_or_breaks_off_may_be_asked_again(pika_emulator: EmulatorClient):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    refused(pika_emulator, f"http://me:{SECRET}@127.0.0.1:{port}/a.png?signature={SECRET}", PikaUnavailableError)

    with web_server(lambda handler: reply(handler, 200, PNG, Content_Length="5000")) as url:
        refused(pika_emulator, f"{url}/a.png", PikaUnavailableError)


def test_a_picture_that_trickles_is_given_up(pika_emulator: EmulatorClient, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(web, "_MINUTE", 0.2)

    with web_server(lambda handler: trickle(handler, Content_Type="image/png")) as url:
        assert "bytes came in a minute" in refused(pika_emulator, f"{url}/a.png", PikaUnavailableError)


def test_a_redirect_chooses_no_password_out_of_the_netrc(
    pika_emulator: EmulatorClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine 127.0.0.1 login somebody password {SECRET}\n")
    monkeypatch.setenv("NETRC", str(netrc))
    seen: list[str | None] = []

    def picture(handler):
        seen.append(handler.headers.get("Authorization"))
        if handler.path == "/there":
            reply(handler, 302, Location=f"{url}/a.png")
        else:
            reply(handler, 200, PNG, Content_Type="image/png")

    with web_server(picture) as url:
        submit(pika_emulator, f"{url.replace('127.0.0.1', 'localhost')}/there")
    assert seen == [None, None]


def test_a_ca_bundle_that_is_not_there_is_told(pika_emulator: EmulatorClient, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")

    assert "CA certificate bundle" in refused(pika_emulator, "https://127.0.0.1:1/a.png", PikaUnavailableError)


def test_a_home_that_nobody_has_is_told(pika_emulator: EmulatorClient):
    assert "cannot be read: Could not determine home" in refused(pika_emulator, "~nobody-of-that-name/a.png")


def test_a_home_folder_and_a_scheme_in_capitals(
    pika_emulator: EmulatorClient, picture: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HOME", str(picture.parent))
    for image in (f"~/{picture.name}", f"{bucket.upper().replace('PICS', 'pics')}/ref.png", f"FILE://{picture}"):
        assert submit(pika_emulator, image)["size"] == len(PNG)


def test_no_secret_of_the_address_is_in_the_log_even_in_debug(pika_emulator: EmulatorClient, caplog):
    caplog.set_level(logging.DEBUG, "airflow_provider_pika")
    with web_server(lambda handler: reply(handler, 500)) as url, pytest.raises(PikaUnavailableError) as failed:
        submit(pika_emulator, f"{url}/a.png?signature={SECRET}")
    logging.getLogger("airflow_provider_pika").error("failed", exc_info=failed.value)

    assert "HTTP 500" in caplog.text
    assert SECRET not in caplog.text
    assert failed.value.__cause__ is failed.value.__context__ is None


@pytest.mark.parametrize("told", [True, False], ids=["announced", "unannounced"])
def test_the_limit_holds_while_reading(pika_emulator: EmulatorClient, told: bool):
    """A server that does not tell the length is cut off at the limit: it may never end."""
    sent = []

    def endless(handler):
        handler.send_response(200)
        if told:
            handler.send_header("Content-Length", str(10**12))
        handler.end_headers()
        try:
            while len(sent) < 10_000:
                handler.wfile.write(PNG.ljust(2**16, b"\0"))
                sent.append(1)
        except OSError:
            pass

    with web_server(endless) as url:
        assert "image_max_bytes" in refused(pika_emulator, f"{url}/a.png", image_max_bytes=2**17)

    assert len(sent) < 1000


def test_the_limit_holds_for_files_and_objects(pika_emulator: EmulatorClient, picture: Path, bucket: str):
    for image in (str(picture), f"{bucket}/ref.png"):
        assert "image_max_bytes" in refused(pika_emulator, image, image_max_bytes=len(PNG) - 1)
        assert submit(pika_emulator, image, image_max_bytes=len(PNG))["size"] == len(PNG)
        pika_emulator.reset()


def test_the_operator_hands_its_limit_on(pika_emulator: EmulatorClient, life, picture: Path):
    def make():
        return EncryptTextOperator(task_id="t", message="HI", prompt="waves", image=str(picture), image_max_bytes=10)

    ending = life(make).run()

    assert isinstance(ending.error, AirflowFailException)
    assert "image_max_bytes allows (10)" in str(ending.error)
    assert pika_emulator.counters()["submits"]["asked"] == 0


def test_a_remote_image_never_lies_in_memory_whole(bucket: str, tmp_path: Path):
    with open_image(f"{bucket}/ref.png") as part:
        assert os.fstat(part.content.fileno()).st_size == len(PNG)
        assert part.name == "ref.png"


def test_refusals_are_final_and_transient_errors_are_not():
    assert not is_retryable(PikaRequestError("x"))
    assert is_retryable(PikaUnavailableError("x"))
