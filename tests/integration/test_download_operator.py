"""PikaDownloadOperator against the emulator's CDN: the film comes home whole, once, or not at all."""

from __future__ import annotations

import errno
import json
import random
import time
from pathlib import Path

import fsspec
import pytest
from airflow.sdk import Asset, AssetAlias
from airflow.sdk.io import attach
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem

from airflow_provider_pika.compat import AirflowFailException, AirflowNotFoundException
from airflow_provider_pika.emulator.client import EmulatorClient
from airflow_provider_pika.emulator.film import make_film
from airflow_provider_pika.emulator.leaps import Proxy
from airflow_provider_pika.emulator.scenes import Waves
from airflow_provider_pika.exceptions import (
    PikaJobFailedError,
    PikaNotFoundError,
    PikaRequestError,
    PikaUnavailableError,
)
from airflow_provider_pika.files import web
from airflow_provider_pika.hooks.pika import PikaHook
from airflow_provider_pika.transfers.pika import PikaDownloadOperator
from tests.support.task_files import Run, reply, trickle, web_server

FILM = make_film(Waves("waves", "HI"))


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between a break and going on, not waited for."""
    pauses: list[float] = []
    monkeypatch.setattr("airflow_provider_pika.files.download.time", Proxy(time, sleep=pauses.append))
    return pauses


@pytest.fixture
def job(pika_emulator: EmulatorClient) -> dict:
    """A finished job as the sensor returns it."""
    return finished()


@pytest.fixture(autouse=True)
def _clean_stores():
    yield
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]


def finished() -> dict:
    return (hook := PikaHook()).get_job(hook.encrypt_text(message="HI", prompt="waves").jobid).public()


def download(path: object, **about) -> Run:
    return Run(PikaDownloadOperator(**{"task_id": "store", "path": str(path), **about}))


def listing(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def stored(run: Run) -> bytes:
    (url,) = run.result
    return Path(url.removeprefix("file://")).read_bytes()


def refused(kind: type, path: object, **about) -> str:
    """Run a download that must fail for good, and return the words."""
    with pytest.raises(AirflowFailException) as error:
        download(path, **about)
    assert isinstance(error.value.__cause__, kind)
    return str(error.value)


def test_the_film_is_stored_under_a_safe_name(pika_emulator: EmulatorClient, job: dict, tmp_path: Path):
    run = download(tmp_path / "new" / "folder", job=job)

    assert run.result == [f"file://{tmp_path}/new/folder/{job['jobid'].replace(':', '_')}_0.mp4"]
    assert stored(run) == FILM
    assert listing(tmp_path / "new" / "folder") == [Path(run.result[0]).name]
    assert run.ti.xcoms == {"video_url": job["attachments"][0]["url"]}
    assert pika_emulator.counters()["token_leaks"] == 0


def test_a_finished_job_costs_no_look_and_needs_no_connection(
    pika_emulator: EmulatorClient, job: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("AIRFLOW_CONN_PIKA_DEFAULT")

    download(tmp_path, job=job)

    assert pika_emulator.counters()["polls"]["total"] == 1, "the one of this test's own"


def test_a_jobid_is_read_first(pika_emulator: EmulatorClient, job: dict, tmp_path: Path):
    assert stored(download(tmp_path, jobid=job["jobid"])) == FILM
    assert pika_emulator.counters()["polls"]["total"] == 2


def test_an_object_store_and_a_file_url(job: dict, tmp_path: Path):
    (url,) = download("memory://bucket/films", job=job, filename="{jobid}{ext}").result

    assert url.startswith("memory://bucket/films/job_")
    fs = fsspec.filesystem("memory")
    assert fs.ls("/bucket/films", detail=False) == [url.removeprefix("memory:/")]
    assert fs.cat_file(url) == FILM
    assert stored(download(f"file://{tmp_path}/with space", job=job)) == FILM


def test_what_is_there_whole_is_not_fetched_again_unless_told(pika_emulator: EmulatorClient, job: dict, tmp_path: Path):
    first = download(tmp_path, job=job)
    Path(first.result[0].removeprefix("file://")).write_bytes(b"x" * len(FILM))

    again = download(tmp_path, job=job)
    assert again.result == first.result
    assert "there already" in again.log.text
    assert stored(again) == b"x" * len(FILM)
    assert pika_emulator.counters()["attachments"] == 1

    assert stored(download(tmp_path, job=job, overwrite=True)) == FILM


def test_a_half_file_of_this_job_is_replaced(job: dict, tmp_path: Path):
    half = tmp_path / f"{job['jobid'].replace(':', '_')}_0.mp4"
    half.write_bytes(FILM[:1000])

    assert stored(download(tmp_path, job=job)) == FILM


def test_a_file_that_may_be_another_film_is_not_replaced_unasked(job: dict, tmp_path: Path):
    (tmp_path / "film.mp4").write_bytes(b"another film")

    said = refused(PikaRequestError, tmp_path, job=job, filename="film{ext}")

    assert "12 bytes" in said
    assert "overwrite=True" in said
    assert (tmp_path / "film.mp4").read_bytes() == b"another film"
    assert stored(download(tmp_path, job=job, filename="film{ext}", overwrite=True)) == FILM


def test_an_expired_link_lets_the_job_be_read_once_more(pika_emulator: EmulatorClient, tmp_path: Path):
    pika_emulator.fault("submit", "expired_link")
    job = finished()

    run = download(tmp_path, job=job)

    assert stored(run) == FILM
    assert pika_emulator.counters()["polls"]["total"] == 2
    assert run.ti.xcoms["video_url"] != job["attachments"][0]["url"], "the button must not lead to the dead link"
    assert pika_emulator.counters()["token_leaks"] == 0


@pytest.mark.parametrize("kind", ["forbidden", "not_found"])
def test_a_link_refused_once_is_renewed(pika_emulator: EmulatorClient, job: dict, tmp_path: Path, kind: str):
    pika_emulator.fault("attachment", kind)

    assert stored(download(tmp_path, job=job)) == FILM
    assert pika_emulator.counters()["polls"]["total"] == 2


def test_a_file_that_is_gone_for_good_is_no_endless_question(pika_emulator: EmulatorClient, job: dict, tmp_path: Path):
    pika_emulator.fault("attachment", "not_found", times=9)

    said = refused(PikaNotFoundError, tmp_path, job=job)

    assert "HTTP 404" in said
    assert "fresh link is no better" in said
    assert "hm=" not in said, "the signed query is not told"
    assert pika_emulator.counters()["attachments"] == 2
    assert pika_emulator.counters()["polls"]["total"] == 2
    assert listing(tmp_path) == []


def test_an_expired_link_of_a_job_nobody_knows_any_more(pika_emulator: EmulatorClient, job: dict, tmp_path: Path):
    pika_emulator.fault("attachment", "not_found")
    pika_emulator.fault("job", "not_found")

    said = refused(PikaNotFoundError, tmp_path, job=job)

    assert "link to the file has expired" in said
    assert job["jobid"] in said


def test_a_cut_connection_is_resumed_where_it_broke(
    pika_emulator: EmulatorClient, job: dict, tmp_path: Path, pauses: list[float]
):
    pika_emulator.fault("attachment", "cut", bytes=3 * web.CHUNK + 5)

    run = download(tmp_path, job=job)

    assert stored(run) == FILM
    assert pauses == [1.0]
    assert "broke off at 192.0 KiB" in run.log.text
    assert "Going on" in run.log.text


def test_a_server_that_knows_no_ranges_is_read_over(pika_emulator: EmulatorClient, job: dict, tmp_path: Path):
    pika_emulator.fault("attachment", "cut", bytes=2 * web.CHUNK)
    pika_emulator.fault("attachment", "ignore_range")

    assert stored(download(tmp_path, job=job)) == FILM


def test_a_link_that_expires_in_the_middle(pika_emulator: EmulatorClient, job: dict, tmp_path: Path):
    pika_emulator.fault("attachment", "cut", bytes=2 * web.CHUNK)
    pika_emulator.fault("attachment", "forbidden")

    assert stored(download(tmp_path, job=job)) == FILM


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        ("cut", {"bytes": 1000}),
        ("drop_before", {}),
        ("server_error", {"status": 503}),
        ("html", {}),
        ("empty", {}),
        ("rate_limit", {}),
    ],
)
def test_breaks_are_borne_up_to_a_bound(
    pika_emulator: EmulatorClient, tmp_path: Path, pauses: list[float], kind: str, params: dict
):
    """Four breaks are gone through, a fifth ends the try with an error Airflow may retry, and leaves nothing behind."""
    job = finished()
    pika_emulator.fault("attachment", kind, times=4, **params)
    assert stored(download(tmp_path / "a", job=job)) == FILM
    assert pauses == [1, 2, 4, 8]

    pika_emulator.reset()
    job = finished()
    pika_emulator.fault("attachment", kind, times=50, **params)
    with pytest.raises(PikaUnavailableError) as error:
        download(tmp_path / "b", job=job)
    assert "after 5 breaks" in str(error.value)
    assert "hm=" not in str(error.value)
    assert error.value.jobid == job["jobid"]
    assert error.value.__cause__ is None
    assert listing(tmp_path / "b") == []


@pytest.mark.parametrize("size", [len(FILM) - 1, len(FILM) + 1, 1])
def test_a_film_of_another_size_than_the_job_tells_is_not_stored(job: dict, tmp_path: Path, size: int):
    job["attachments"][0]["size"] = size

    with pytest.raises(PikaUnavailableError, match=f"the job tells of {size:,}"):
        download(tmp_path, job=job)

    assert listing(tmp_path) == []


def test_a_film_whose_size_nobody_told_is_stored(job: dict, tmp_path: Path):
    del job["attachments"][0]["size"]

    assert stored(download(tmp_path, job=job)) == FILM


@pytest.mark.parametrize("told", [False, True], ids=["untold", "told"])
def test_a_changed_film_is_not_put_together_from_two(job: dict, tmp_path: Path, told: bool):
    """After a break the CDN has another version: it is taken whole from its beginning."""
    old, new = b"o" * (3 * web.CHUNK), b"n" * (3 * web.CHUNK)
    asked = []

    def answer(handler):
        asked.append({name: handler.headers.get(name) for name in ("Range", "If-Range", "Authorization")})
        if len(asked) == 1:
            reply(handler, 200, old[: 2 * web.CHUNK], Content_Length=str(len(old)), ETag='"1"')
            handler.close_connection = True
        else:
            reply(handler, 200, new, ETag='"2"')

    with web_server(answer) as url:
        job["attachments"][0] |= {"url": f"{url}/film.mp4", "size": len(old) if told else None}
        run = download(tmp_path, job=job)

    assert stored(run) == new
    assert asked[1] == {"Range": f"bytes={2 * web.CHUNK}-", "If-Range": '"1"', "Authorization": None}


def test_all_attachments_or_only_the_videos(job: dict, tmp_path: Path):
    film = job["attachments"][0]
    still = {"id": "2", "filename": "still.png", "content_type": "image/png", "url": film["url"], "size": len(FILM)}
    job["attachments"].append(still)

    assert len(download(tmp_path / "a", job=job).result) == 1
    both = download(tmp_path / "b", job=job, all_attachments=True)
    assert [Path(url).suffix for url in both.result] == [".mp4", ".png"]
    assert both.ti.xcoms["video_url"] == film["url"]


def test_an_asset_alias_gets_an_event_for_each_file_and_an_asset_its_extra(job: dict, tmp_path: Path):
    alias, asset = AssetAlias("films"), Asset("x://films")

    for _ in range(2):  # also when all is there already: the try before may have died before telling
        run = download(tmp_path / "é", job=job, outlets=[alias, asset])
        (url,) = run.result
        (event,) = run.events[alias].asset_alias_events
        assert event.dest_asset_key.uri == url.replace("é", "%C3%A9")
        assert event.extra == {"jobid": job["jobid"], "url": url, "size": len(FILM)}
        assert run.events[asset].extra == {"jobid": job["jobid"], "urls": [url]}


def test_a_public_address_is_what_the_button_opens(job: dict, tmp_path: Path):
    run = download(tmp_path, job=job, public_url="https://films.example.com/x/")

    assert run.ti.xcoms["video_url"] == f"https://films.example.com/x/{Path(run.result[0]).name}"


def test_without_do_xcom_push_nothing_is_pushed(job: dict, tmp_path: Path):
    assert download(tmp_path, job=job, do_xcom_push=False).ti.xcoms == {}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "neither was given"),
        ({"job": None, "jobid": "None"}, "neither was given"),
        ({"job": {"jobid": "j"}, "jobid": "j"}, "both were given"),
        ({"job": ["a", "b"]}, "must be a finished job"),
        ({"job": "{'jobid': 'j'}"}, "must be a finished job"),
        ({"job": {"status": "completed"}}, "jobid is missing"),
        ({"job": {"jobid": "j", "status": "progress"}}, "has not ended, it is progress"),
        ({"job": {"jobid": "j"}}, "has not ended, it is in no state the API names"),
        ({"job": {"jobid": "j", "status": "completed"}}, "has no video"),
        ({"job": {"jobid": "j", "status": "completed", "attachments": "none"}}, "has no video"),
        ({"job": {"jobid": "j", "status": "completed", "attachments": [{"filename": "a.mp4"}]}}, "has no video"),
        ({"jobid": "j", "path": ""}, "path is missing"),
        ({"jobid": "j", "path": "https://me:hush@host/films"}, "https://host/films"),
        ({"jobid": "j", "path": "nosuchstore://x"}, "nosuchstore"),
        ({"jobid": "j", "path": "gs://my_gcp@x"}, "gs:// needs apache-airflow-providers-google on this worker"),
        ({"jobid": "j", "path": "s3://x/films"}, "s3:// needs apache-airflow-providers-amazon[s3fs] on this worker"),
        ({"jobid": "j", "path": "nope://c@x"}, "no installed Airflow provider brings nope://"),
    ],
)
def test_bad_input_is_refused_before_anything_is_asked(
    pika_emulator: EmulatorClient, tmp_path: Path, given: dict, said: str
):
    words = refused(PikaRequestError, **{"path": tmp_path, **given})

    assert said in words
    assert "hush" not in words
    assert pika_emulator.counters()["requests"] == 0


def test_a_bad_template_is_refused_before_anything_is_fetched(pika_emulator: EmulatorClient, job: dict, tmp_path: Path):
    assert "'path'" in refused(PikaRequestError, tmp_path, job=job, filename="../{jobid}")
    assert pika_emulator.counters()["attachments"] == 0


def test_a_job_that_ended_badly_has_no_video(tmp_path: Path):
    job = {"jobid": "j", "status": "moderated", "error": "not nice"}

    assert "not nice" in refused(PikaJobFailedError, tmp_path, job=job)


def test_a_job_still_running_may_be_asked_for_again(pika_emulator: EmulatorClient, tmp_path: Path):
    pika_emulator.configure(seconds=60)
    jobid = PikaHook().encrypt_text(message="HI", prompt="waves").jobid

    with pytest.raises(PikaUnavailableError, match="PikaJobSensor"):
        download(tmp_path, jobid=jobid)


def test_a_job_as_json_text_will_do(job: dict, tmp_path: Path):
    assert stored(download(tmp_path, job=json.dumps(job))) == FILM


def test_a_target_that_cannot_be_written(job: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("x")
    assert "is a file" in refused(PikaRequestError, tmp_path / "file", job=job)
    assert "Not a directory" in refused(PikaRequestError, tmp_path / "file" / "films", job=job)
    (tmp_path / "films" / "film.mp4").mkdir(parents=True)
    assert "there is a folder" in refused(PikaRequestError, tmp_path / "films", job=job, filename="film{ext}")

    def denied(self, path, **_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(MemoryFileSystem, "makedirs", denied)
    assert "Permission denied" in refused(PikaRequestError, "memory://films", job=job)


class _Full(MemoryFileSystem):
    """A store with little room."""

    protocol = "full"
    store: dict = {}  # noqa: RUF012 - fsspec's own way
    pseudo_dirs: list = [""]  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path):
        return MemoryFileSystem._strip_protocol(path.removeprefix("full://"))

    def _open(self, path, mode="rb", **kwargs):
        super()._open(path, mode, **kwargs)
        self.store[path] = _Brimming(self, path)
        return self.store[path]


class _Brimming(MemoryFile):
    def write(self, data):
        if self.tell() > web.CHUNK:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


def test_a_full_disk_is_told_and_leaves_no_half_file(job: dict):
    fs = _Full()
    attach("full", fs=fs)

    with pytest.raises(PikaUnavailableError, match="disk is full") as error:
        download("full://films", job=job)

    assert "No half file was left behind" in str(error.value)
    assert fs.find("/") == []


def test_a_kill_in_the_middle_leaves_no_half_file(job: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    operator = PikaDownloadOperator(task_id="store", path=str(tmp_path), job=job)
    seen = []

    def kill(*_):
        seen.append(listing(tmp_path))
        raise SystemExit(143)

    monkeypatch.setattr("airflow_provider_pika.files.download._Progress.tell", kill)
    with pytest.raises(SystemExit):
        Run(operator)

    ((part,),) = seen
    assert part.endswith(".part")
    assert listing(tmp_path) == []


@pytest.mark.parametrize("path", ["films", "s3://my_conn@bucket/films"])
def test_a_kill_that_lets_the_process_go_on_ends_the_download_for_a_retry(
    job: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
):
    """Airflow calls on_kill() and returns from its signal handler; a retry must not be lost over the closed file."""
    monkeypatch.chdir(tmp_path)
    fs = _Uploads()
    attach("s3", "my_conn", fs=fs)
    operator = PikaDownloadOperator(task_id="store", path=path, job=job)
    monkeypatch.setattr("airflow_provider_pika.files.download._Progress.tell", lambda *_: operator.on_kill())

    with pytest.raises(PikaUnavailableError, match="Airflow is ending this task"):
        Run(operator)

    assert fs.find("/") == []
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []


def test_a_task_that_was_killed_before_its_download_begins_none(
    pika_emulator: EmulatorClient, job: dict, tmp_path: Path
):
    operator = PikaDownloadOperator(task_id="store", path=str(tmp_path), job=job)
    operator.on_kill()

    with pytest.raises(PikaUnavailableError, match="Airflow is ending this task"):
        Run(operator)

    assert pika_emulator.counters()["attachments"] == 0
    assert listing(tmp_path) == []


def elsewhere(job: dict, url: str, size: int) -> dict:
    """Return the job with its film on another server."""
    return {**job, "attachments": [{**job["attachments"][0], "url": url, "size": size}]}


def test_a_film_that_trickles_holds_no_worker_for_ever(job: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(web, "_MINUTE", 0.2)

    with (
        web_server(lambda handler: trickle(handler, Content_Length="100000")) as url,
        pytest.raises(PikaUnavailableError, match=r"after 5 breaks.*bytes came in a minute"),
    ):
        download(tmp_path, job=elsewhere(job, f"{url}/film.mp4", 100_000))

    assert listing(tmp_path) == []


@pytest.mark.parametrize("came", [12, 8])
def test_a_film_that_ends_too_late_or_too_early_is_not_stored(job: dict, tmp_path: Path, came: int):
    """Of a server that tells no length, and hangs up when it is through."""

    def untold(handler):
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(b"x" * came)

    with (
        web_server(untold) as url,
        pytest.raises(PikaUnavailableError, match=f"after 5 breaks.*{came} bytes came, 10 were due"),
    ):
        download(tmp_path, job=elsewhere(job, f"{url}/film.mp4", 10))

    assert listing(tmp_path) == []


@pytest.mark.parametrize("kind", [ValueError, RuntimeError])
def test_a_signed_address_in_a_stores_error_is_not_told(job: dict, monkeypatch: pytest.MonkeyPatch, kind: type):
    def denied(*_, **__):
        raise kind("no access to https://lake.example/films?sig=hush-hush-hush")

    monkeypatch.setattr(MemoryFileSystem, "makedirs", denied)
    with pytest.raises((AirflowFailException, PikaUnavailableError), match="no access to") as error:
        download("memory://films", job=job)
    assert "hush" not in str(error.value)


def test_a_slow_store_is_no_slow_server(job: dict, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(web, "_MINUTE", 1.0)
    monkeypatch.setattr(web, "LEAST_A_MINUTE", 2**30)
    write = MemoryFile.write
    monkeypatch.setattr(MemoryFile, "write", lambda self, data: (time.sleep(0.4), write(self, data))[1])

    with web_server(lambda handler: reply(handler, 200, FILM)) as url:
        download("memory://films", job=elsewhere(job, f"{url}/film.mp4", len(FILM)))


def test_a_long_film_over_a_line_that_is_cut_now_and_then_comes_home(job: dict, tmp_path: Path, pauses: list[float]):
    """Nine breaks, each after more than a MiB of news: the bound is for breaks that bring nothing."""
    film = random.Random(1).randbytes(15 * 2**20)

    def cut(handler):
        start = int(handler.headers.get("Range", "bytes=0-")[6:-1])
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(film) - start))
        handler.send_header("Content-Range", f"bytes {start}-{len(film) - 1}/{len(film)}")
        handler.send_header("ETag", '"one"')
        handler.end_headers()
        handler.wfile.write(film[start : start + 3 * 2**19])

    with web_server(cut) as url:
        run = download(tmp_path, job=elsewhere(job, f"{url}/film.mp4", len(film)))

    assert stored(run) == film
    assert pauses == [1.0] * 9


def test_a_film_that_came_under_the_same_name_meanwhile_is_not_replaced(
    job: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As of two mapped tasks whose filename is the same: both had looked, and nothing was there."""
    monkeypatch.setattr(
        "airflow_provider_pika.files.download._Progress.tell",
        lambda *_: (tmp_path / "clip.mp4").write_bytes(b"of another job"),
    )

    assert "already another file" in refused(PikaRequestError, tmp_path, job=job, filename="clip{ext}")
    assert listing(tmp_path) == ["clip.mp4"]
    assert (tmp_path / "clip.mp4").read_bytes() == b"of another job"


def test_a_page_in_the_way_of_the_fresh_link_may_pass(pika_emulator: EmulatorClient, job: dict, tmp_path: Path):
    pika_emulator.fault("attachment", "html", status=403, times=2)

    with pytest.raises(PikaUnavailableError, match=r"HTTP 403 with a web page \(HTML\).*renewed once"):
        download(tmp_path, job=job)

    assert stored(download(tmp_path, job=job)) == FILM


def test_a_link_that_expires_a_second_time_is_renewed_by_a_retry(
    pika_emulator: EmulatorClient, job: dict, tmp_path: Path
):
    for _ in range(2):
        pika_emulator.fault("attachment", "cut", bytes=web.CHUNK)
        pika_emulator.fault("attachment", "forbidden")

    with pytest.raises(PikaUnavailableError, match="renewed once"):
        download(tmp_path, job=job)


def test_a_stores_connection_that_cannot_be_read_may_pass(job: dict, monkeypatch: pytest.MonkeyPatch):
    """So Airflow tells of a secrets backend that fails."""

    def missing(*_, **__):
        raise AirflowNotFoundException("The conn_id `lake` isn't defined")

    monkeypatch.setattr(MemoryFileSystem, "info", missing)
    with pytest.raises(PikaUnavailableError, match="does not exist or could not be read"):
        download("memory://films", job=job)


def test_what_a_stores_library_says_of_its_connection_is_told(job: dict, monkeypatch: pytest.MonkeyPatch):
    def unreachable(*_):
        raise ValueError("unable to connect to account for lake")

    monkeypatch.setattr("airflow.sdk.io.has_fs", lambda scheme: scheme == "abfs")
    monkeypatch.setattr("airflow.sdk.io.attach", unreachable)

    said = refused(PikaRequestError, "abfs://my_conn@lake/films", job=job)
    assert "unable to connect to account" in said
    assert "install" not in said


@pytest.mark.parametrize("url", ["https://127.0.0.1:1/film.mp4", f"http://{'a' * 70}.example/film.mp4"])
def test_an_address_that_cannot_even_be_asked_is_told(
    job: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")

    with pytest.raises(PikaUnavailableError, match=r"Gave up .*(CA certificate bundle|label)") as error:
        download(tmp_path, job=elsewhere(job, url, 10))

    assert error.value.jobid == job["jobid"]


def test_a_url_with_one_slash_is_no_folder(job: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)

    assert "as s3://bucket/films" in refused(PikaRequestError, "s3:/bucket/films", job=job)
    assert listing(tmp_path) == []


def test_a_store_that_loses_bytes_is_found_out(job: dict, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(MemoryFile, "write", lambda self, data: super(MemoryFile, self).write(data[:-1]))

    with pytest.raises(PikaUnavailableError, match="the store holds"):
        download("memory://films", job=job)

    assert fsspec.filesystem("memory").find("/") == []


class _Uploads(MemoryFileSystem):
    """An object store as S3 is: an upload appears when its file is closed, also by the garbage collector."""

    protocol = "s3"
    store: dict = {}  # noqa: RUF012 - fsspec's own way
    pseudo_dirs: list = [""]  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path):
        return MemoryFileSystem._strip_protocol(path.removeprefix("s3://"))

    def _open(self, path, mode="rb", **kwargs):
        return _Upload(self, path)


class _Upload:
    discarded = 0

    def __init__(self, fs, path):
        self.fs, self.path, self.data, self.closed = fs, path, b"", False

    def write(self, data):
        self.data += data

    def close(self):
        if not self.closed:
            MemoryFile(self.fs, self.path, self.data).commit()
            self.closed = True

    def discard(self):
        type(self).discarded += 1

    __del__ = close


def test_an_object_store_upload_shows_only_when_whole(
    pika_emulator: EmulatorClient, job: dict, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(_Upload, "discarded", 0)
    fs = _Uploads()
    attach("s3", "my_conn", fs=fs)
    pika_emulator.fault("attachment", "cut", times=9, bytes=1000)
    with pytest.raises(PikaUnavailableError):
        download("s3://my_conn@bucket/films", job=job)
    assert fs.find("/") == []
    assert _Upload.discarded == 1

    pika_emulator.reset()
    job = finished()
    (url,) = download("s3://my_conn@bucket/films", job=job, outlets=[AssetAlias("films")]).result
    assert url.startswith("s3://my_conn@bucket/films/job_")
    (key,) = fs.find("/")
    assert key == url.replace("s3://my_conn@", "/")
    assert fs.cat_file(key) == FILM
