"""Opening the reference image before anything is paid for."""

from __future__ import annotations

import mimetypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from airflow_provider_pika.exceptions import PikaRequestError
from airflow_provider_pika.hooks.multipart import ImagePart


@contextmanager
def open_image(image: str) -> Iterator[ImagePart]:
    """
    Open an image for a submit.

    :param image: path of a local file
    :raises PikaRequestError: when it is missing, empty, a folder or cannot be read
    """
    path = Path(image)
    try:
        if path.is_dir():
            raise _bad(image, "is a folder")
        if path.stat().st_size == 0:
            raise _bad(image, "is empty (0 bytes)")
        content = path.open("rb")
    except OSError as error:
        raise _bad(image, f"cannot be read: {error.strerror or error}") from error
    with content:
        content_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        yield ImagePart(path.name, content, content_type)


def _bad(image: str, what: str) -> PikaRequestError:
    return PikaRequestError(f"The image {image!r} {what}. Nothing was sent.")
