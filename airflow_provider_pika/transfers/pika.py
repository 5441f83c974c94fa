"""Bringing the video home: from the CDN, whose links die within a day, into a store of one's own."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.sdk import Asset, AssetAlias, BaseOperator

from airflow_provider_pika.api.fields import checked_jobid
from airflow_provider_pika.api.job import Job
from airflow_provider_pika.ending import task_error
from airflow_provider_pika.exceptions import (
    PikaError,
    PikaJobFailedError,
    PikaNotFoundError,
    PikaRequestError,
    PikaUnavailableError,
)
from airflow_provider_pika.files import storage
from airflow_provider_pika.files.transfer import (
    DEFAULT_FILENAME,
    Existing,
    existing_file,
    file_names,
    names_job,
    size_of,
)
from airflow_provider_pika.hooks.pika import PikaHook
from airflow_provider_pika.links import PikaVideoLink

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_pika.files.download import Download

_NOTHING = "Nothing was downloaded."


class PikaDownloadOperator(BaseOperator):
    """
    Store the videos of a finished job in a folder; return the list of their URLs there.

    What a browser can open is the XCom ``video_url``. A job that ended badly, or without a video, fails the task
    without retries.

    A file shows under its name only once it is whole, and one that is there already in full size is not fetched
    again. An expired link (403, 404) lets the job be read once more for a fresh one. A connection that breaks, or
    brings less than 256 KiB a minute, is resumed; after five breaks without a MiB of news the task may be retried. The
    API token stays with the API: the CDN never sees it.

    With an ``AssetAlias`` among its ``outlets`` the task adds an event for each stored file, so that a DAG scheduled
    on the alias runs for a new video; an event of a plain ``Asset`` carries the URLs. Both carry the jobid.

    :param path: the folder: a local one, or any URL ``ObjectStoragePath`` takes, as ``s3://conn_id@bucket/films``
        (templated)
    :param job: the finished job, as the sensor returns it: ``wait.output``. Costs no call to the API (templated)
    :param jobid: instead of ``job``: the job is read first; while it runs, that error may be retried (templated)
    :param pika_conn_id: the Airflow connection of type ``pika`` (templated)
    :param filename: how a file is called, with the placeholders ``{jobid}``, ``{index}`` (from 0) and ``{ext}``
        (``.mp4``); default ``{jobid}_{index}{ext}``. Without ``{jobid}`` a file of another size under that name is an
        error, not replaced (templated)
    :param overwrite: fetch and replace what is there already
    :param all_attachments: store every attachment, not only the videos
    :param public_url: where the folder can be seen by a browser, for the task's link; without it the link is the
        job's own, which expires (templated)
    """

    template_fields: Sequence[str] = ("path", "job", "jobid", "pika_conn_id", "filename", "public_url")
    operator_extra_links = (PikaVideoLink(),)
    ui_color = "#d6f0e0"

    def __init__(
        self,
        *,
        path: Any,
        job: Any = None,
        jobid: str | None = None,
        pika_conn_id: str = PikaHook.default_conn_name,
        filename: str = DEFAULT_FILENAME,
        overwrite: bool = False,
        all_attachments: bool = False,
        public_url: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.path = path
        self.job = job
        self.jobid = jobid
        self.pika_conn_id = pika_conn_id
        self.filename = filename
        self.overwrite = overwrite
        self.all_attachments = all_attachments
        self.public_url = public_url
        self._download: Download | None = None
        self._video_url: str | None = None
        self._may_read_again = True
        self._killed = False

    def execute(self, context: Context) -> list[str]:
        """Store the files, tell Airflow of them, and return their URLs."""
        self._may_read_again = True
        jobid: str | None = None
        try:
            folder = self._folder()
            job = self._given_job()
            jobid = job.jobid
            attachments = self._attachments(job)
            names = file_names(self.filename, job.jobid, attachments)
            self._bring(job, attachments, [folder.child(name) for name in names])
        except PikaError as error:
            error.jobid = error.jobid or jobid
            raise task_error(error)  # noqa: B904 - it is the same error, or has it for its cause
        urls = [folder.child(name).url for name in names]
        self._add_events(context, job, attachments, urls)
        self._video_url = self._link(job, attachments, names)
        if self.do_xcom_push:
            context["ti"].xcom_push("video_url", self._video_url)
        return urls

    def on_kill(self) -> None:
        """Bring nothing more, and remove the part of a file that has been written."""
        # Airflow calls this and lets the process go on, also before there is a download to end.
        self._killed = True
        if self._download:
            self._download.kill()

    def _folder(self) -> storage.Place:
        path = str(self.path or "").strip()
        if path in ("", "None"):
            raise PikaRequestError(f"path is missing (got {self.path!r}): give the folder for the video. {_NOTHING}")
        if path.startswith(("http://", "https://")):
            raise PikaRequestError(
                f"path is {storage.clean(path)!r}: a web server takes no files. Give a local folder or an object"
                f" store's URL, as s3://conn_id@bucket/films. {_NOTHING}"
            )
        asked = f"The folder {storage.clean(path)!r} cannot be used"
        place = storage.attempt(lambda: storage.locate(path), asked, _NOTHING)
        about = storage.attempt(place.info, asked, _NOTHING)
        if about and about.get("type") == "file":
            raise PikaRequestError(f"path {place.shown!r} is a file: give the folder for the video. {_NOTHING}")
        return place

    def _given_job(self) -> Job:
        """Return the job to bring home, completed."""
        given = [name for name in ("job", "jobid") if getattr(self, name) not in (None, "", "None")]
        if len(given) != 1:
            which = "both were" if given else "neither was"
            raise PikaRequestError(
                f"Give either 'job' (the finished job, as the sensor returns it) or 'jobid'; {which} given (job="
                f"{_brief(self.job)}, jobid={self.jobid!r}). An upstream task that was skipped gives none. {_NOTHING}"
            )
        if given == ["jobid"]:
            job = PikaHook(self.pika_conn_id).get_job(checked_jobid(self.jobid))
        else:
            job = self._read_dict()
        if job.status == "completed":
            return job
        if job.is_final:
            raise PikaJobFailedError(
                f"{job.status.capitalize()}: {job.reason}. {job.jobid} has no video to bring home.", jobid=job.jobid
            )
        # Read anew, a retry may find it completed; handed over, it stays as it is.
        kind = PikaUnavailableError if given == ["jobid"] else PikaRequestError
        raise kind(
            f"{job.jobid} has not ended, it is {job.shown_status}: wait for it with a"
            f" PikaJobSensor before this task. {_NOTHING}",
            jobid=job.jobid,
        )

    def _read_dict(self) -> Job:
        body = self.job
        if isinstance(body, str):
            try:
                body = json.loads(body)
            except ValueError:
                body = None
        if not isinstance(body, dict):
            raise PikaRequestError(
                f"job is {_brief(self.job)}, but must be a finished job as the sensor returns it: give wait.output"
                f" rather than a template, and map the task with .expand(job=…) over several. {_NOTHING}"
            )
        return Job.from_answer(body, checked_jobid(body.get("jobid")))

    def _attachments(self, job: Job) -> list[dict[str, Any]]:
        wanted = job.attachments if self.all_attachments else job.videos
        found = [attachment for attachment in wanted if attachment.get("url")]
        if not found:
            what = "attachments" if self.all_attachments else "video among its attachments"
            raise PikaRequestError(f"{job.jobid} has completed, but has no {what}. {_NOTHING}", jobid=job.jobid)
        return found

    def _bring(self, job: Job, attachments: list[dict[str, Any]], targets: list[storage.Place]) -> None:
        from airflow_provider_pika.files.download import Download, Source
        from airflow_provider_pika.files.web import plain_session

        with plain_session() as session:
            for index, target in enumerate(targets):
                attachment = attachments[index]
                if self._is_there(target, size_of(attachment)):
                    continue
                source = Source(
                    str(attachment["url"]),
                    target.path.rpartition("/")[2],
                    size_of(attachment),
                    str(attachment.get("content_type")).startswith("text/html"),
                )
                self._download = Download(
                    session,
                    source,
                    target,
                    fresh_link=self._fresh_links(job, attachments, index),
                    before_end=partial(self._look_again, target, size_of(attachment)),
                    log=self.log,
                )
                if self._killed:
                    self._download.kill()
                self._download.run()
                self._download = None
                host = f" on the host {socket.gethostname()}" if target.is_local else ""
                self.log.info("Stored %s%s", target.shown, host)

    def _look_again(self, target: storage.Place, size: int | None) -> None:
        """Look once more under a name that is not this job's alone: a mapped task may have stored its film there."""
        if not self.overwrite and not names_job(self.filename):
            self._is_there(target, size)

    def _is_there(self, target: storage.Place, size: int | None) -> bool:
        about = storage.attempt(target.info, f"The file {target.shown!r} cannot be looked for", _NOTHING)
        if about is None:
            return False
        if about.get("type") == "directory":
            raise PikaRequestError(f"Where the file {target.shown!r} should go there is a folder. {_NOTHING}")
        found = int(about.get("size") or 0)
        decision = existing_file(found, size, overwrite=self.overwrite, own_name=names_job(self.filename))
        if decision is Existing.REFUSE:
            raise PikaRequestError(
                f"There is already another file {target.shown!r} ({found:,} bytes; this one has"
                f" {size or 'an unknown size'}). Put {{jobid}} into the filename, or set overwrite=True. {_NOTHING}"
            )
        self.log.info("%s has %s bytes: %s.", target.shown, f"{found:,}", decision.value)
        return decision is Existing.SKIP

    def _fresh_links(self, job: Job, attachments: list[dict[str, Any]], index: int) -> Callable[[], str | None]:
        """Return the function that asks the API for this attachment's link anew, at most once for the whole task."""

        def fresh_link() -> str | None:
            if not self._may_read_again:
                return None
            self._may_read_again = False
            try:
                fresh = PikaHook(self.pika_conn_id).get_job(job.jobid)
            except PikaNotFoundError as error:
                raise PikaNotFoundError(
                    f"The link to the file has expired, and there is no fresh one: {error}", jobid=job.jobid
                ) from error
            found = self._attachments(fresh)
            # All links of a job expire together, so the later files profit from this one read.
            for place, old in enumerate(attachments):
                same = found[place : place + 1]
                if old.get("id"):
                    same = [new for new in found if new.get("id") == old["id"]]
                if same:
                    attachments[place] = {**old, "url": same[0]["url"]}
            return str(attachments[index]["url"])

        return fresh_link

    def _add_events(self, context: Context, job: Job, attachments: list[dict[str, Any]], urls: list[str]) -> None:
        events = context["outlet_events"]
        for outlet in self.outlets:
            if isinstance(outlet, AssetAlias):
                for attachment, url in zip(attachments, urls, strict=True):
                    extra: dict[str, Any] = {"jobid": job.jobid, "url": url, "size": size_of(attachment)}
                    events[outlet].add(Asset(_asset_uri(url)), extra=extra)
            elif isinstance(outlet, Asset):
                events[outlet].extra.update({"jobid": job.jobid, "urls": list(urls)})

    def _link(self, job: Job, attachments: list[dict[str, Any]], names: list[str]) -> str | None:
        """Return what a browser can open: the stored video if it can be reached, else the job's own link."""
        videos = [attachment.get("id") or attachment.get("url") for attachment in job.videos]
        for attachment, name in zip(attachments, names, strict=True):
            if (attachment.get("id") or attachment.get("url")) in videos:
                return f"{self.public_url.rstrip('/')}/{quote(name)}" if self.public_url else str(attachment["url"])
        return job.video_url


def _asset_uri(url: str) -> str:
    """Return a stored file's URL as an asset is named: without the connection, and in ASCII."""
    scheme, _, rest = url.partition("://")
    netloc, slash, path = rest.partition("/")
    return quote(f"{scheme}://{netloc.rpartition('@')[2]}{slash}{path}", safe="/:%@!$&'()*+,;=~#?")


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
