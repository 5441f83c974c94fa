"""The body of a submit, streamed: text fields as plain parts, the image as a file part."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, NamedTuple, cast

if TYPE_CHECKING:
    import httpx


class ImagePart(NamedTuple):
    """
    An image, open for reading.

    :param name: the file name told to the API
    :param content: the open binary file
    :param content_type: its media type
    """

    name: str
    content: IO[bytes]
    content_type: str


class MultipartBody:
    """
    A multipart body that ``requests`` streams.

    ``requests`` alone would read a file whole into memory, so httpx's encoder is used, which both
    libraries being at hand costs nothing. The body also knows whether it began to leave: a submit
    that failed before that made no job, one that failed after may have.
    """

    def __init__(self, fields: dict[str, str], image: ImagePart | None) -> None:
        import httpx

        # (None, text): a part without a filename, as the contract wants text fields.
        parts: list[tuple[str, tuple[str | None, str] | tuple[str, IO[bytes], str]]] = [
            (name, (None, text)) for name, text in fields.items()
        ]
        if image is not None:
            parts.append(("image", (image.name, image.content, image.content_type)))
        # The URL is not used: only the encoded body and its headers are.
        self._request: httpx.Request = httpx.Request("POST", "http://localhost", files=parts)
        self.started = False

    @property
    def headers(self) -> dict[str, str]:
        """The Content-Type with its boundary."""
        return {"Content-Type": self._request.headers["Content-Type"]}

    def __len__(self) -> int:
        """Return the body's length in bytes, which ``requests`` sends as Content-Length."""
        return int(self._request.headers["Content-Length"])

    def __iter__(self) -> Iterator[bytes]:
        """Yield the body in chunks."""
        self.started = True
        yield from cast("httpx.SyncByteStream", self._request.stream)
