"""Opening the reference image, wherever it lies, before anything is paid for."""

from __future__ import annotations

import mimetypes
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NoReturn
from urllib.parse import parse_qsl, unquote, urlsplit

from airflow_provider_pika.api.answers import is_transient_status
from airflow_provider_pika.api.commands import IMAGE_MAX_BYTES
from airflow_provider_pika.exceptions import PikaError, PikaRequestError, PikaUnavailableError
from airflow_provider_pika.files import storage, web
from airflow_provider_pika.files.multipart import ImagePart

_HEAD = 512
_REFUSED = "Nothing was sent."
_MAGIC = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"GIF8[79]a"), "image/gif"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "image/webp"),
    (re.compile(rb"BM.{4}\0\0\0\0", re.DOTALL), "image/bmp"),
)
# Python 3.10 to 3.12 do not know this one on every system.
_TYPES = {".webp": "image/webp"}


@contextmanager
def open_image(image: str | os.PathLike[str], max_bytes: int = IMAGE_MAX_BYTES) -> Iterator[ImagePart]:
    """
    Open an image for a submit.

    A remote one is first copied to a temporary file, so that nothing can break once the paid submit has begun.

    :param image: a local path, ``file://``, ``http(s)://``, or any URL ``ObjectStoragePath`` takes
    :param max_bytes: refuse a larger one
    :raises PikaRequestError: when it is missing, empty, a folder, too large, unreadable or no image
    :raises PikaUnavailableError: when fetching it failed in a way that may pass; nothing was submitted either
    """
    url = str(image)
    scheme = url.partition("://")[0].lower() if "://" in url else "file"
    if scheme in ("http", "https"):
        with tempfile.TemporaryFile() as content:
            name, told = _download(url, content, max_bytes)
            yield _part(url, name, content, max_bytes, told)
    elif scheme != "file":
        with tempfile.TemporaryFile() as content:
            _copy(url, content, max_bytes)
            yield _part(url, unquote(url.rpartition("/")[2]), content, max_bytes)
    else:
        with _open_local(url) as content:
            yield _part(url, Path(content.name).name, content, max_bytes)


def image_type(name: str, head: bytes, told: str | None = None) -> str | None:
    """
    Return the content type of an image: by its first bytes, else by its name, else by what a server told.

    :param head: its first bytes
    :return: None if it is no image
    """
    for magic, content_type in _MAGIC:
        if magic.match(head):
            return content_type
    if head.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
        # An error page under the name of a picture.
        return None
    suffix = Path(name).suffix.lower()
    guesses = (_TYPES.get(suffix) or mimetypes.guess_type(f"x{suffix}")[0], told)
    return next((guess for guess in guesses if guess and guess.startswith("image/")), None)


def _part(url: str, name: str, content: IO[bytes], max_bytes: int, told: str | None = None) -> ImagePart:
    size = os.fstat(content.fileno()).st_size
    if size == 0:
        raise _bad(url, "is empty (0 bytes)")
    if size > max_bytes:
        raise _too_large(url, max_bytes, size)
    content.seek(0)
    head = content.read(_HEAD)
    content.seek(0)
    content_type = image_type(name, head, told)
    if content_type is None:
        raise _bad(url, f"is no image the API would take (its name is {name!r}): give a PNG, JPEG, GIF, WebP or BMP")
    if not name or name.startswith("."):
        name = "image" + (mimetypes.guess_extension(content_type) or "")
    return ImagePart(name, content, content_type)


def _open_local(url: str) -> IO[bytes]:
    try:
        path = Path(url).expanduser()
        if "://" in url:
            literal = url.partition("://")[2].removeprefix("localhost")
            # Both spellings are about: with and without percent-encoding.
            path = Path(literal if Path(literal).exists() else unquote(literal))
        if path.is_dir():
            raise _bad(url, "is a folder")
        return path.open("rb")
    # No home of such a name is a RuntimeError.
    except (OSError, ValueError, RuntimeError) as error:
        said = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise _bad(url, f"cannot be read: {said}") from error


def _copy(url: str, target: IO[bytes], max_bytes: int) -> None:
    """Copy an object out of its store."""

    def copy() -> None:
        place = storage.locate(url)
        about = place.info()
        if about is None:
            raise _bad(url, "does not exist")
        if about.get("type") == "directory":
            raise _bad(url, "is a folder")
        size = about.get("size")
        if size is not None and size > max_bytes:
            raise _too_large(url, max_bytes, size)
        with place.fs.open(place.path, "rb", block_size=web.CHUNK) as source:
            _fill(url, target, iter(lambda: source.read(web.CHUNK), b""), max_bytes)

    storage.attempt(copy, f"The image {_shown(url)!r} cannot be read", _REFUSED)


def _download(url: str, target: IO[bytes], max_bytes: int) -> tuple[str, str | None]:
    """Download an image; return its name and the content type the server told."""
    import requests

    failed: PikaError
    try:
        _mask(url)
        with (
            web.plain_session() as session,
            session.get(url, stream=True, timeout=(web.CONNECT_TIMEOUT, web.READ_TIMEOUT)) as response,
        ):
            told = response.headers.get("Content-Type", "").partition(";")[0].strip().lower() or None
            _check_answer(url, response.status_code, told)
            announced = response.headers.get("Content-Length", "")
            if announced.isdecimal() and int(announced) > max_bytes:
                raise _too_large(url, max_bytes, int(announced))
            _fill(url, target, web.pieces(response), max_bytes)
            return Path(unquote(urlsplit(response.url).path)).name, told
    except (ValueError, requests.TooManyRedirects) as error:
        # requests' own errors about an unusable address are ValueErrors.
        failed = _bad(url, f"cannot be fetched: {web.reason(error)}")
    # Also of a CA bundle that is not there.
    except OSError as error:
        failed = PikaUnavailableError(
            f"The image {_shown(url)!r} could not be fetched: {web.reason(error)}. This may pass. {_REFUSED}"
        )
    raise failed


def _check_answer(url: str, status: int, told: str | None) -> None:
    if is_transient_status(status):
        raise PikaUnavailableError(
            f"The image {_shown(url)!r} could not be fetched: its server answered HTTP {status}. This may pass."
            f" {_REFUSED}",
            status=status,
        )
    if status != 200:
        raise _bad(url, f"cannot be fetched: its server answered HTTP {status}", status)
    if told in ("text/html", "application/xhtml+xml"):
        raise _bad(url, "is a web page (HTML), not a picture: give the address of the picture itself", status)


def _fill(url: str, target: IO[bytes], chunks: Iterable[bytes], max_bytes: int) -> None:
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > max_bytes:
            raise _too_large(url, max_bytes)
        try:
            target.write(chunk)
            # Its size is read from the file, not from the buffer before it.
            target.flush()
        except OSError as error:
            _no_room(error)


def _no_room(error: OSError) -> NoReturn:
    raise PikaUnavailableError(
        f"The image cannot be kept in the temporary folder {tempfile.gettempdir()}: {error.strerror}. {_REFUSED}"
    ) from error


def _mask(url: str) -> None:
    """Let Airflow hide what may be secret in the URL wherever a library logs it."""
    from airflow.sdk.log import mask_secret

    parts = urlsplit(url)
    # Shorter values are sizes and versions: masked, they would blot the log.
    for secret in (parts.password, *(value for _, value in parse_qsl(parts.query) if len(value) >= 16)):
        if secret:
            mask_secret(secret)


def _shown(url: str) -> str:
    """Return the URL as it may stand in a log."""
    return storage.clean(url) if "://" in url else url


def _too_large(url: str, max_bytes: int, size: int | None = None) -> PikaRequestError:
    said = f"has {size:,} bytes" if size else "is larger"
    return _bad(url, f"{said}, more than image_max_bytes allows ({max_bytes:,})")


def _bad(url: str, what: str, status: int | None = None) -> PikaRequestError:
    return PikaRequestError(f"The image {_shown(url)!r} {what}. {_REFUSED}", status=status)
