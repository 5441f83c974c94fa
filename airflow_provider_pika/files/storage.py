"""Files in any store Airflow reaches: a local folder, S3, GCS, Azure, and what else fsspec knows."""

from __future__ import annotations

import errno
import os
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from airflow_provider_pika.compat import AirflowNotFoundException
from airflow_provider_pika.exceptions import PikaError, PikaRequestError, PikaUnavailableError

T = TypeVar("T")

# Here an upload appears when it is closed, whole or not at all. Everywhere else a file grows in sight of all, so it
# is written under another name and renamed.
_WHOLE_OR_NOT = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"})
_PROVIDERS = {
    **dict.fromkeys(("s3", "s3a"), "apache-airflow-providers-amazon[s3fs]"),
    **dict.fromkeys(("gs", "gcs"), "apache-airflow-providers-google"),
    **dict.fromkeys(("abfs", "abfss", "az"), "apache-airflow-providers-microsoft-azure"),
}
# These stores hold a block in memory until it is full. S3 takes 10,000 of them: enough for 80 GB.
_BLOCK = 8 * 2**20
_FINAL = (
    FileNotFoundError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    FileExistsError,
    ImportError,
    ValueError,
    NotImplementedError,
)
_FINAL_ERRNO = frozenset({errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP})
_EXCERPT = 300


@dataclass(frozen=True)
class Place:
    """
    A file or folder in a store.

    :param fs: the store's filesystem, authenticated by the Airflow connection the URL names
    :param path: where it is, in the filesystem's own form
    :param url: the URL that leads back here: ``scheme://conn_id@bucket/key``, ``file:///…`` for a local path
    """

    fs: Any = field(repr=False)
    path: str
    url: str

    @property
    def is_local(self) -> bool:
        """Whether it lies on this host, where no other one finds it."""
        return self.url.startswith("file://")

    @property
    def shown(self) -> str:
        """The URL as it may stand in a log."""
        return clean(self.url)

    def child(self, name: str) -> Place:
        """Return a file in this folder."""
        return Place(self.fs, f"{self.path.rstrip('/')}/{name}", f"{self.url.rstrip('/')}/{name}")

    def info(self) -> dict[str, Any] | None:
        """Return what the store knows of it (``type``, ``size``), None if there is nothing."""
        try:
            self.fs.invalidate_cache(self.path)
            found: dict[str, Any] = self.fs.info(self.path)
        except FileNotFoundError:
            return None
        return found


def locate(url: str) -> Place:
    """
    Find the store of a local path or of a URL as ``ObjectStoragePath`` takes it.

    :raises Exception: whatever the store's library raises; see :func:`attempt`
    """
    scheme, found, rest = url.partition("://")
    scheme = scheme.lower() if found else ""
    if not found and re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", url):
        raise ValueError(f"a URL has two slashes after its scheme, as {url.replace(':/', '://', 1)}")
    if not found or scheme == "file":
        path = _local_path(rest if found else url)
        return Place(_filesystem("file", None), path, f"file://{path}")
    netloc, slash, key = rest.partition("/")
    conn_id, _, bucket = netloc.rpartition("@")
    fs = _filesystem(scheme, conn_id or None)
    return Place(fs, str(fs._strip_protocol(f"{scheme}://{bucket}{slash}{key}")), url)  # noqa: SLF001 - fsspec's own way in


def _local_path(path: str) -> str:
    # file://localhost/… is the other spelling of file:///…
    return str(Path(path.removeprefix("localhost")).expanduser().absolute())


def _filesystem(scheme: str, conn_id: str | None) -> Any:
    from airflow.sdk.io import attach, has_fs

    try:
        return attach(scheme, conn_id).fs
    except ValueError:
        # A store's library may say so of a connection, or of an address it does not reach.
        if has_fs(scheme):
            raise
        provider = _PROVIDERS.get(scheme)
        wanted = f"{scheme}:// needs {provider} on this worker: install it, then clear the task"
        if conn_id:
            raise ValueError(wanted if provider else f"no installed Airflow provider brings {scheme}://") from None
        import fsspec  # type: ignore[import-untyped]

        # No Airflow provider brings this store: without a connection fsspec itself may know it (memory://).
        try:
            return fsspec.filesystem(scheme)
        except ImportError as error:
            raise ValueError(wanted if provider else str(error)) from None


def attempt(work: Callable[[], T], asked: str, advice: str = "") -> T:
    """
    Do something in a store, whose library may raise whatever it likes.

    :param asked: what is being done, as the beginning of a sentence
    :param advice: what the reader should know besides
    :raises PikaRequestError: for bad input, which no retry can mend
    :raises PikaUnavailableError: for a fault that may pass
    """
    try:
        return work()
    except Exception as error:  # noqa: BLE001 - see above
        failed = _fault(error, asked, advice)
    # Outside of the except: the library's own error, chained, could bring a signed URL into the log.
    raise failed


def _fault(error: Exception, asked: str, advice: str) -> PikaError:
    if isinstance(error, PikaError):
        return error
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, FileNotFoundError):
        said = "there is no such file, folder or bucket"
    elif number in (errno.ENOSPC, errno.EDQUOT):
        said = f"the disk is full ({os.strerror(number)}): free some space, then clear the task"
    elif isinstance(error, OSError) and error.strerror:
        said = clean(error.strerror)
    elif isinstance(error, AirflowNotFoundException):
        # So Airflow tells of a secrets backend that fails, too: not final, for the film's link lives a day.
        said = f"its Airflow connection does not exist or could not be read ({clean(str(error))})"
    elif isinstance(error, ValueError):
        said = clean(str(error))
    else:
        said = clean(f"{type(error).__name__}: {error}")
    kind = PikaRequestError if isinstance(error, _FINAL) or number in _FINAL_ERRNO else PikaUnavailableError
    return kind(f"{asked}: {said[:_EXCERPT]}. {advice}".rstrip())


def clean(text: str) -> str:
    """Return a text without what may be secret in the URLs within: passwords before the host, and queries."""
    text = re.sub(r"(://[^/?#\s@:]*):[^/?#\s]*@", r"\1:***@", text)
    text = re.sub(r"(https?://)[^/?#\s@]+@", r"\1", text)
    return re.sub(r"\?[^\s'\"<>)]+", "?…", text)


class Sink:
    """
    A file being written, which shows under its name only once it is whole.

    :param place: where it will be
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.written = 0
        scheme = place.url.partition("://")[0]
        self._renames = scheme not in _WHOLE_OR_NOT
        folder, _, name = place.path.rpartition("/")
        # Hidden, and never the same twice: a zombie of this task may still be writing its own.
        self._path = f"{folder}/.{name[:100]}.{uuid.uuid4().hex[:8]}.part" if self._renames else place.path
        if self._renames:
            place.fs.makedirs(folder, exist_ok=True)
        self._file: Any = place.fs.open(self._path, "wb", block_size=_BLOCK)

    def write(self, data: bytes) -> None:
        """Append bytes."""
        self._file.write(data)
        self.written += len(data)

    def finish(self) -> None:
        """
        Let the file appear.

        :raises OSError: also when the store does not hold as many bytes as were written
        """
        self._file.close()
        fs, place = self.place.fs, self.place
        held = (Place(fs, self._path, place.url).info() or {}).get("size")
        if held is not None and held != self.written:
            raise OSError(errno.EIO, f"the store holds {held} of the {self.written} bytes written")
        if not self._renames:
            return
        try:
            fs.mv(self._path, place.path)
        except FileExistsError:
            fs.rm_file(place.path)
            fs.mv(self._path, place.path)

    def abandon(self) -> None:
        """Leave nothing behind. Never raises: it is called when something has gone wrong already."""
        try:
            if self._renames:
                self._file.close()
            else:
                # Closing would complete the upload, and so would the file's finalizer.
                self._file.discard()
        except Exception:  # noqa: BLE001, S110 - the first error is the one to tell of
            pass
        if not self._renames:
            self._file.closed = True
            return
        try:
            self.place.fs.rm_file(self._path)
        except Exception:  # noqa: BLE001, S110 - the same; the name says that the file is a part
            pass
