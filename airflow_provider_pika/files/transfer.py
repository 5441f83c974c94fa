"""Bringing files home: under which names, and what an answer of the CDN means. Decisions only, no I/O."""

from __future__ import annotations

import hashlib
import mimetypes
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from string import Formatter
from typing import Any
from urllib.parse import unquote, urlsplit

from airflow_provider_pika.api.answers import is_transient_status
from airflow_provider_pika.exceptions import PikaRequestError

DEFAULT_FILENAME = "{jobid}_{index}{ext}"
# Breaks of one file's download, of whatever kind, until it is an error; one that came after so many new bytes begins
# the count anew, or a long film over a line that is cut now and then would never come home.
BREAK_LIMIT = 5
PROGRESS = 2**20
_SLOWEST_RESUME = 8.0
_PLACEHOLDERS = frozenset({"jobid", "index", "ext"})
_LONGEST_JOBID = 150
_LONGEST_NAME = 200
_GONE = frozenset({401, 403, 404, 410})


def names_job(template: str) -> bool:
    """Whether names made from this template belong to one job alone."""
    return "{jobid}" in template


def file_names(template: str, jobid: str, attachments: Sequence[Mapping[str, Any]]) -> list[str]:
    """
    Name a job's files: one safe name each, none twice.

    :param template: with the placeholders ``{jobid}``, ``{index}`` (from 0) and ``{ext}`` (``.mp4``)
    :raises PikaRequestError: for a template that makes no usable name
    """
    names: list[str] = []
    for index, attachment in enumerate(attachments):
        name = _file_name(template, jobid, index, _extension(attachment))
        while name.lower() in (taken.lower() for taken in names):
            stem, dot, ext = name.rpartition(".")
            name = f"{stem}_{index}.{ext}" if dot and stem else f"{name}_{index}"
        names.append(name)
    return names


def _file_name(template: str, jobid: str, index: int, ext: str) -> str:
    try:
        asked = {field for _, field, _, _ in Formatter().parse(template) if field is not None}
        if asked - _PLACEHOLDERS:
            raise _bad_template(template, f"it asks for {', '.join(sorted(asked - _PLACEHOLDERS)) or 'nothing'}")
        name = template.format(jobid=_safe_jobid(jobid), index=index, ext=ext)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise _bad_template(template, str(error)) from None
    if not name.strip(". ") or re.search(r"[/\\\x00-\x1f\x7f]", name):
        raise _bad_template(template, f"{name!r} is no file name; folders belong into 'path'")
    if len(name.encode("utf-8", "replace")) > _LONGEST_NAME:
        raise _bad_template(template, f"the name would be longer than {_LONGEST_NAME} bytes")
    return name


def _bad_template(template: str, what: str) -> PikaRequestError:
    return PikaRequestError(
        f"The filename template {template!r} cannot be used: {what}. It may hold {{jobid}}, {{index}} and {{ext}}."
        " Nothing was downloaded."
    )


def _safe_jobid(jobid: str) -> str:
    """Make a jobid a part of a file name; different jobids give different parts."""
    safe = re.sub(r"[^A-Za-z0-9.-]", "_", jobid).lstrip(".")
    # Colons are all a real jobid has of the sort. Whatever else was replaced might collide with another's.
    if re.fullmatch(r"[A-Za-z0-9:-][A-Za-z0-9.:-]*", jobid) and len(safe) <= _LONGEST_JOBID:
        return safe
    return f"{safe[:_LONGEST_JOBID]}-{hashlib.sha256(jobid.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def _extension(attachment: Mapping[str, Any]) -> str:
    name = attachment.get("filename") or unquote(urlsplit(str(attachment.get("url") or "")).path)
    found = re.search(r"\.[A-Za-z0-9]{1,8}$", str(name))
    if found:
        return found.group().lower()
    return mimetypes.guess_extension(str(attachment.get("content_type") or "").partition(";")[0].strip()) or ".bin"


def size_of(attachment: Mapping[str, Any]) -> int | None:
    """Return the size the API tells of an attachment, None if it tells none."""
    size = attachment.get("size")
    return size if isinstance(size, int) and not isinstance(size, bool) and size > 0 else None


class Existing(Enum):
    """What to do where a file of that name is already."""

    SKIP = "it is there already, whole"
    REPLACE = "replacing it"
    REFUSE = "refused"


def existing_file(found: int, size: int | None, *, overwrite: bool, own_name: bool) -> Existing:
    """
    Decide about a file that is already where a download would go.

    :param found: its size
    :param size: the size it should have, if that is known
    :param own_name: whether the name is this job's alone: then what differs is a half file, not another's
    """
    if overwrite:
        return Existing.REPLACE
    if size is not None and found == size:
        return Existing.SKIP
    return Existing.REPLACE if own_name else Existing.REFUSE


class Step(Enum):
    """What to do with an answer of the CDN."""

    APPEND = "its body goes on where the file ends"
    REPEAT = "its body begins at the beginning: what the file has already is passed over"
    RESTART = "its body is another version: the file begins anew"
    FRESH_LINK = "the link has expired"
    AGAIN = "a transient error"
    GIVE_UP = "a refusal"


@dataclass(frozen=True)
class Part:
    """
    What there is of a file so far.

    :param offset: bytes received
    :param size: the whole file's, None as long as nobody told
    :param etag: the CDN's name for the version
    """

    offset: int = 0
    size: int | None = None
    etag: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        """The headers that ask for the rest."""
        if not self.offset:
            return {}
        asked = {"Range": f"bytes={self.offset}-"}
        # A weak etag may stand for other bytes, so a range cannot be asked on its condition.
        if self.etag and not self.etag.startswith("W/"):
            asked["If-Range"] = self.etag
        return asked


@dataclass(frozen=True)
class Offer:
    """
    What an answer of the CDN offers.

    :param part: what the file is known to be, from now on
    :param said: the answer in words
    :param is_page: whether a web page came where the file belongs
    """

    step: Step
    part: Part
    said: str
    is_page: bool = False


def read_answer(status: int, headers: Mapping[str, str], part: Part, *, size: int | None, page: bool = False) -> Offer:
    """
    Decide what an answer of the CDN means.

    :param headers: the answer's, with keys of any case
    :param part: what there is already
    :param size: the size the API told, if any
    :param page: whether the file is a web page, for which HTML is no surprise
    """
    said = f"HTTP {status}"
    is_page = headers.get("content-type", "").startswith("text/html") and not page
    if status in _GONE:
        return Offer(Step.FRESH_LINK, part, f"{said} with a web page (HTML)" if is_page else said, is_page)
    if is_transient_status(status):
        return Offer(Step.AGAIN, part, said)
    if status == 416:
        return Offer(Step.AGAIN, Part(), f"{said}: there is no rest to get")
    if status not in (200, 206):
        return Offer(Step.GIVE_UP, part, said)
    if is_page:
        return Offer(Step.AGAIN, part, f"{said} with a web page (HTML) where the file belongs", is_page)
    start, total = _extent(status, headers)
    etag = headers.get("etag")
    if size is not None and total is not None and total != size:
        return Offer(Step.AGAIN, Part(), f"{said} with {total:,} bytes, but the job tells of {size:,}")
    if total == 0:
        return Offer(Step.AGAIN, part, f"{said} without a body")
    now = Part(part.offset, total if total is not None else size, etag)
    # Without a name or a length for the version, nothing says that both halves are of one file.
    same = (etag == part.etag if etag and part.etag else None not in (part.size, now.size)) and (
        None in (part.size, now.size) or part.size == now.size
    )
    if status == 206 and (start != part.offset or (part.offset and not same)):
        return Offer(Step.AGAIN, Part(), f"{said} with another part than the one asked for")
    if status == 206 or not part.offset:
        return Offer(Step.APPEND, now, said)
    return Offer(Step.REPEAT if same else Step.RESTART, now, said)


def _extent(status: int, headers: Mapping[str, str]) -> tuple[int, int | None]:
    """Return where the answer's body begins, and the size of the whole file."""
    if status == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("content-range", "").strip())
        if not found:
            return -1, None
        return int(found[1]), None if found[2] == "*" else int(found[2])
    length = headers.get("content-length", "")
    return 0, int(length) if length.isdecimal() and not headers.get("content-encoding") else None


def resume_wait(breaks: int) -> float:
    """Return the seconds to wait after the n-th break, counted from 1."""
    return min(_SLOWEST_RESUME, float(2 ** (breaks - 1)))


def megabytes(size: float) -> str:
    """Format a size."""
    return f"{size / 2**20:,.1f} MiB" if size >= 2**20 else f"{size / 2**10:,.1f} KiB"
