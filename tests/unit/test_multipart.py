"""The body of a submit: what its bytes are, and whether it has begun to leave."""

from __future__ import annotations

import email.parser
import email.policy
import io
from email.message import EmailMessage
from pathlib import Path

import pytest

from airflow_provider_pika.exceptions import PikaRequestError
from airflow_provider_pika.files.image import open_image
from airflow_provider_pika.files.multipart import ImagePart, MultipartBody, NotSentError


def parts_of(body: MultipartBody) -> list[EmailMessage]:
    """Read the body as an independent reader of MIME does."""
    whole = f"Content-Type: {body.headers['Content-Type']}\r\n\r\n".encode() + b"".join(body)
    message = email.parser.BytesParser(EmailMessage, policy=email.policy.HTTP).parsebytes(whole)
    return list(message.iter_parts())


def test_text_fields_are_plain_utf8_parts_without_a_filename() -> None:
    parts = parts_of(MultipartBody({"message": "HÉ 🎬", "replyRef": "a\r\nb"}, {}))
    names = [part.get_param("name", header="content-disposition") for part in parts]
    assert names == ["message", "replyRef"]
    assert [part.get_filename() for part in parts] == [None, None]
    assert [part.get_payload(decode=True) for part in parts] == ["HÉ 🎬".encode(), b"a\r\nb"]
    assert [part["content-type"] for part in parts] == [None, None]


def test_the_image_is_a_file_part_with_its_type() -> None:
    image = ImagePart("cat.png", io.BytesIO(b"\x89PNG bytes"), "image/png")
    text, file = parts_of(MultipartBody({"message": "HI"}, {"image": image}))
    assert text.get_filename() is None
    assert file.get_param("name", header="content-disposition") == "image"
    assert (file.get_filename(), file.get_content_type(), file.get_payload(decode=True)) == (
        "cat.png",
        "image/png",
        b"\x89PNG bytes",
    )


@pytest.mark.parametrize("image", [None, ImagePart("cat.png", io.BytesIO(b"x" * 100_000), "image/png")])
def test_the_length_announced_is_the_length_sent(image: ImagePart | None) -> None:
    body = MultipartBody({"message": "HÉ 🎬"}, {"image": image} if image else {})
    assert len(body) == len(b"".join(body))


def test_each_body_has_a_boundary_of_its_own() -> None:
    one, other = MultipartBody({"a": "b"}, {}), MultipartBody({"a": "b"}, {})
    assert one.headers["Content-Type"].startswith("multipart/form-data; boundary=")
    assert one.headers != other.headers


def test_a_large_image_is_streamed_not_held_in_memory() -> None:
    body = MultipartBody({"message": "HI"}, {"image": ImagePart("cat.png", io.BytesIO(bytes(3_000_000)), "image/png")})
    assert max(len(chunk) for chunk in body) <= 1_000_000


def test_a_body_has_not_started_until_its_first_chunk_is_asked_for() -> None:
    body = MultipartBody({"message": "HI"}, {})
    len(body)
    chunks = iter(body)
    assert not body.started
    next(chunks)
    assert body.started


def test_the_last_byte_is_told_when_it_has_been_taken() -> None:
    told: list[str] = []
    body = MultipartBody(
        {"message": "HI"}, {}, before_body=lambda: told.append("before"), after_body=lambda: told.append("after")
    )
    chunks = iter(body)
    sent = next(chunks)
    assert (len(sent), told) == (len(body), ["before"])
    assert next(chunks, None) is None
    assert told == ["before", "after"]


def test_a_body_that_was_stopped_before_it_began_never_leaves() -> None:
    asked: list[str] = []
    body = MultipartBody({"message": "HI"}, {}, before_body=lambda: asked.append("before"))
    assert not body.stop()
    with pytest.raises(NotSentError):
        next(iter(body))
    assert asked == []
    assert not body.started


def test_a_body_that_is_stopped_while_its_caller_is_asked_never_leaves() -> None:
    """What was reported as certainly not sent must not be sent by a call that was given up."""
    stopped: list[bool] = []
    body = MultipartBody({"message": "HI"}, {}, before_body=lambda: stopped.append(body.stop()))
    with pytest.raises(NotSentError):
        next(iter(body))
    assert stopped == [False]


def test_a_body_that_is_stopped_midway_is_never_completed() -> None:
    told: list[str] = []
    image = ImagePart("cat.png", io.BytesIO(bytes(100_000)), "image/png")
    body = MultipartBody({"message": "HI"}, {"image": image}, after_body=lambda: told.append("after"))
    chunks = iter(body)
    next(chunks)
    assert body.stop()
    with pytest.raises(NotSentError):
        next(chunks)
    assert told == []


@pytest.mark.parametrize("refusal", [PikaRequestError("no"), BrokenPipeError(32, "Broken pipe")], ids=repr)
def test_a_caller_that_refuses_holds_the_body_back(refusal: Exception) -> None:
    def refuse() -> None:
        raise refusal

    body = MultipartBody({"message": "HI"}, {}, before_body=refuse)
    with pytest.raises(NotSentError) as caught:
        next(iter(body))
    assert caught.value.refusal is refusal
    assert not body.started


@pytest.mark.parametrize(
    ("name", "content_type"),
    [("cat.png", "image/png"), ("cat.JPG", "image/jpeg"), ("cat.gif", "image/gif"), ("cat.webp", "image/webp")],
)
def test_an_image_goes_out_under_its_name_and_type(tmp_path: Path, name: str, content_type: str) -> None:
    (tmp_path / name).write_bytes(b"bytes")
    with open_image(str(tmp_path / name)) as part:
        assert (part.name, part.content_type, part.content.read()) == (name, content_type, b"bytes")


def test_the_file_is_closed_afterwards(tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(b"bytes")
    with open_image(str(tmp_path / "cat.png")) as part:
        pass
    assert part.content.closed


@pytest.mark.parametrize(
    ("make", "said"), [("missing", "cannot be read"), ("folder", "is a folder"), ("empty", "is empty")]
)
def test_an_image_that_cannot_be_sent_is_refused_with_its_path(tmp_path: Path, make: str, said: str) -> None:
    path = tmp_path / "cat.png"
    if make == "folder":
        path.mkdir()
    elif make == "empty":
        path.touch()
    with pytest.raises(PikaRequestError, match=rf"{path}.* {said}.*Nothing was sent"), open_image(str(path)):
        pass


@pytest.mark.parametrize("image", [5, b"cat.png", ["cat.png"], "cat\0.png"], ids=repr)
def test_an_image_that_is_no_path_is_refused(image: str) -> None:
    with pytest.raises(PikaRequestError, match="image"), open_image(image):
        pass
