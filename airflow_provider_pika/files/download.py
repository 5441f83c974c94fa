"""Streaming one file from a CDN into a store, through expired links, breaks and half answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, TypeVar

from airflow_provider_pika.exceptions import PikaNotFoundError, PikaRequestError, PikaUnavailableError
from airflow_provider_pika.files import storage, web
from airflow_provider_pika.files.transfer import (
    BREAK_LIMIT,
    PROGRESS,
    Offer,
    Part,
    Step,
    megabytes,
    read_answer,
    resume_wait,
)

if TYPE_CHECKING:
    import requests
    from airflow.sdk.types import Logger

T = TypeVar("T")

_LOG_EVERY = 10.0


@dataclass(frozen=True)
class Source:
    """
    A file on the CDN.

    :param url: its signed link
    :param name: what it is called in the log
    :param size: its size as the API told it, if it did
    :param page: whether it is a web page
    """

    url: str
    name: str
    size: int | None = None
    page: bool = False


class Download:
    """
    One file on its way home.

    :param target: where it goes
    :param fresh_link: called when the link has expired; returns another, or None if there is none
    :param before_end: called before the file shows under its name; what it raises ends the download
    """

    def __init__(
        self,
        session: requests.Session,
        source: Source,
        target: storage.Place,
        *,
        fresh_link: Callable[[], str | None],
        before_end: Callable[[], object],
        log: Logger,
    ) -> None:
        self._session = session
        self._source = source
        self._url = source.url
        self._target = target
        self._fresh_link = fresh_link
        self._before_end = before_end
        self._log = log
        self._sink: storage.Sink
        self._part = Part()
        self._breaks = 0
        self._furthest = 0
        self._link_is_good = False
        self._killed = False
        self._progress = _Progress(log, source.name)

    def run(self) -> int:
        """
        Bring the file home; return its size. Whatever happens, no half file stays behind.

        :raises PikaNotFoundError: when the link has expired and there is no fresh one
        :raises PikaRequestError: when the CDN refuses, or the target cannot be written
        :raises PikaUnavailableError: after too many breaks, or when the disk is full
        """
        try:
            self._begin()
            while not self._leg():
                pass
            self._before_end()
            self._store(self._sink.finish)
        except BaseException:
            # A kill too: Airflow ends a task by an exception.
            self.abandon()
            raise
        self._progress.end(self._sink.written)
        return self._sink.written

    def kill(self) -> None:
        """Bring nothing more; from a signal handler, at any moment. Airflow lets the process go on after it."""
        self._killed = True
        self.abandon()

    def abandon(self) -> None:
        """Remove what has been written; from a signal handler too, at any moment."""
        sink: storage.Sink | None = getattr(self, "_sink", None)
        if sink:
            sink.abandon()

    def _leg(self) -> bool:
        """Ask once, and take what comes; return whether the file is whole."""
        import urllib3

        self._end_if_killed()
        try:
            with self._session.get(
                self._url,
                headers=self._part.headers,
                stream=True,
                timeout=(web.CONNECT_TIMEOUT, web.READ_TIMEOUT),
            ) as response:
                status = response.status_code
                offer = read_answer(
                    status, response.headers, self._part, size=self._source.size, page=self._source.page
                )
                if taken := offer.step in (Step.APPEND, Step.REPEAT, Step.RESTART):
                    self._take(offer, response)
        # Most are errors of requests, which are OSErrors: so is a CA bundle that is not there. An odd host is neither.
        except (OSError, urllib3.exceptions.HTTPError) as error:
            broken = web.reason(error)
        else:
            if taken:
                return self._is_whole()
            self._turned_away(offer, status)
            return False
        # Outside of the except: the library's own error, chained, would bring the signed link into the log.
        self._broke(broken)
        return False

    def _take(self, offer: Offer, response: requests.Response) -> None:
        passed_over = self._part.offset if offer.step is Step.REPEAT else 0
        if offer.step is Step.RESTART:
            self._again()
        self._part = Part(self._sink.written, offer.part.size, offer.part.etag)
        self._progress.begin(self._sink.written, offer.part.size)
        self._link_is_good = True
        for chunk in _after(passed_over, web.pieces(response)):
            self._store(partial(self._sink.write, chunk))
            self._part = Part(self._sink.written, offer.part.size, offer.part.etag)
            self._progress.tell(self._sink.written)

    def _is_whole(self) -> bool:
        size = self._part.size if self._part.size is not None else self._source.size
        came = self._sink.written
        if came and (size is None or size == came):
            return True
        if size is not None and came > size:
            self._again()
        self._broke(f"{came:,} bytes came, {size or 'some'} were due")
        return False

    def _turned_away(self, offer: Offer, status: int) -> None:
        name, asked = self._source.name, f"(asked the CDN: GET {storage.clean(self._url)})"
        if offer.step is Step.FRESH_LINK:
            self._log.info("The link of %s may have expired (%s): reading the job again. %s", name, offer.said, asked)
            link = self._fresh_link()
            if link is None and (self._link_is_good or offer.is_page):
                raise PikaUnavailableError(
                    f"The file {name} was refused ({offer.said}) after its link had been renewed once. This may pass:"
                    f" a retry reads the job anew. {asked}",
                    status=status,
                )
            if link is None:
                raise PikaNotFoundError(
                    f"The file {name} is gone ({offer.said}): the job was read again, and its fresh link is no better."
                    f" {asked}",
                    status=status,
                )
            self._url, self._link_is_good = link, False
        elif offer.step is Step.GIVE_UP:
            raise PikaRequestError(
                f"The CDN refuses the file {name} ({offer.said}): a retry cannot help. {asked}", status=status
            )
        else:
            if offer.part.offset < self._sink.written:
                self._again()
            self._broke(offer.said, status)

    def _broke(self, said: str, status: int | None = None) -> None:
        if self._sink.written >= self._furthest + PROGRESS:
            self._breaks, self._furthest = 0, self._sink.written
        self._breaks += 1
        name, have, tries = self._source.name, megabytes(self._sink.written), f"{self._breaks + 1} of {BREAK_LIMIT}"
        if self._breaks >= BREAK_LIMIT:
            raise PikaUnavailableError(
                f"Gave up on the file {name} after {self._breaks} breaks, with {have} received. The last one: {said}."
                " Nothing was stored. This may pass: try again while the link lasts. (asked the CDN: GET"
                f" {storage.clean(self._url)})",
                status=status,
            )
        wait = resume_wait(self._breaks)
        self._log.warning("%s broke off at %s (%s); going on in %g s, try %s.", name, have, said, wait, tries)
        time.sleep(wait)

    def _again(self) -> None:
        """Forget what has been received."""
        self.abandon()
        self._begin()

    def _begin(self) -> None:
        self._part = Part()
        self._sink = self._attempt(lambda: storage.Sink(self._target))
        self._end_if_killed()

    def _store(self, work: Callable[[], object]) -> None:
        try:
            self._attempt(work)
        finally:
            # The kill closed the file, so what was done last may have failed, or have had no effect.
            self._end_if_killed()

    def _attempt(self, work: Callable[[], T]) -> T:
        asked = f"The file {self._target.shown!r} cannot be written"
        return storage.attempt(work, asked, "No half file was left behind.")

    def _end_if_killed(self) -> None:
        if self._killed:
            raise PikaUnavailableError(
                f"The file {self._source.name} was not brought home: Airflow is ending this task. No half file was"
                " left behind, and a retry begins anew."
            ) from None


def _after(passed_over: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield a body from a place on."""
    for chunk in chunks:
        rest = chunk[passed_over:] if passed_over else chunk
        passed_over = max(0, passed_over - len(chunk))
        if rest:
            yield rest


class _Progress:
    """Tells the task's log how far a download has come, now and then."""

    def __init__(self, log: Logger, name: str) -> None:
        self._log = log
        self._name = name
        self._size: int | None = None
        self._started = self._told = time.monotonic()
        self._legs = count(1)

    def begin(self, offset: int, size: int | None) -> None:
        self._size = size
        whole = megabytes(size) if size else "unknown size"
        if next(self._legs) == 1:
            self._log.info("Downloading %s (%s).", self._name, whole)
        else:
            self._log.info("Going on with %s at %s of %s.", self._name, megabytes(offset), whole)

    def tell(self, written: int) -> None:
        now = time.monotonic()
        if now - self._told >= _LOG_EVERY:
            self._told = now
            part = f" ({100 * written // self._size} %)" if self._size else ""
            self._log.info("%s: %s%s, %s.", self._name, megabytes(written), part, self._speed(written))

    def end(self, written: int) -> None:
        self._log.info("%s: %s, %s.", self._name, megabytes(written), self._speed(written))

    def _speed(self, written: int) -> str:
        return f"{megabytes(written / max(0.001, time.monotonic() - self._started))}/s"
