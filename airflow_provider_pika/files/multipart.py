"""The body of a submit, streamed: text fields as plain parts, images as file parts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any, NamedTuple

# Python's own HTTP client reads a file in pieces of this size too.
CHUNK = 2**14


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


class NotSentError(Exception):
    """
    The body was held back before its first byte, or before its next one.

    No error of a socket or of ``requests``, so that neither library takes it for one of its own: urllib3 goes on after
    a ``BrokenPipeError``.

    :param refusal: what ``before_body`` raised, None if the body was stopped
    """

    def __init__(self, refusal: BaseException | None = None) -> None:
        super().__init__("the body of the submit was held back")
        self.refusal = refusal


class MultipartBody:
    """
    A multipart body that ``requests`` streams, and that can be stopped from another thread.

    A submit that failed before its body's first byte made no job, one that failed after may have. So whether it has
    begun and whether it may go on are decided under one lock: a body that was stopped before its first byte never
    leaves.

    :param before_body: called once, just before the first byte leaves; if it raises, nothing leaves
    :param after_body: called once the last byte has been handed to the socket; must not raise
    """

    def __init__(
        self,
        fields: dict[str, str],
        files: Mapping[str, ImagePart],
        *,
        before_body: Callable[[], None] | None = None,
        after_body: Callable[[], None] | None = None,
    ) -> None:
        from requests_toolbelt import MultipartEncoder

        # A mere text is a part without a filename, as the contract wants text fields.
        parts: list[tuple[str, Any]] = list(fields.items())
        for name, file in files.items():
            # A submit that is sent once more reads it from the start.
            file.content.seek(0)
            parts.append((name, tuple(file)))
        self._encoder = MultipartEncoder(parts)
        self._length = int(self._encoder.len)
        self._before_body = before_body
        self._after_body = after_body
        self._lock = threading.Lock()
        self._stopped = False
        self._started = False

    @property
    def headers(self) -> dict[str, str]:
        """The Content-Type with its boundary."""
        return {"Content-Type": str(self._encoder.content_type)}

    def __len__(self) -> int:
        """Return the body's length in bytes, which ``requests`` sends as Content-Length."""
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        """Yield the body in chunks."""
        self._go_on()
        if self._before_body:
            try:
                self._before_body()
            except BaseException as refusal:
                raise NotSentError(refusal) from refusal
        self._go_on(start=True)
        while chunk := self._encoder.read(CHUNK):
            self._go_on()
            yield chunk
        if self._after_body:
            self._after_body()

    @property
    def started(self) -> bool:
        """Whether the first byte may have left."""
        return self._started

    def stop(self) -> bool:
        """Let no further byte be taken; return whether the body had started."""
        with self._lock:
            self._stopped = True
            return self._started

    def _go_on(self, *, start: bool = False) -> None:
        with self._lock:
            if self._stopped:
                raise NotSentError
            self._started = self._started or start
