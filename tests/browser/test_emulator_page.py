"""The emulator's own page as a person watches it: films that play, what runs, what came, and which faults are set."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import requests
from PIL import Image

from airflow_provider_pika.emulator.client import EmulatorClient
from airflow_provider_pika.emulator.server import running_emulator
from airflow_provider_pika.emulator.settings import Pace, Settings
from tests.browser.page import Page, chromium_session

HOSTILE = "<img src=x onerror=\"document.title='caught'\">'\"&"


@pytest.fixture
def emulator(chromedriver: tuple[str, str]) -> Iterator[EmulatorClient]:
    with running_emulator(Settings(pace=Pace(0), channels={"1000000000000000001": 3})) as client:
        yield client


@pytest.fixture
def page(emulator: EmulatorClient, chromedriver: tuple[str, str], driver_url: str, tmp_path: Path) -> Iterator[Page]:
    """Return a new browser that looks at the emulator; no Airflow is needed."""
    with (
        TemporaryDirectory(prefix="pika-browser-", ignore_cleanup_errors=True) as profile,
        chromium_session(driver_url, chromedriver[0], Path(profile)) as driver,
    ):
        yield Page(driver, emulator.url, tmp_path)


def submit(emulator: EmulatorClient, **fields: str) -> str:
    parts = {"message": "HELLO", "prompt": "waves crashing over a beach"} | fields
    answer = requests.post(
        f"{emulator.url}/v1/pika/encrypt_text",
        files={name: (None, text) for name, text in parts.items()},
        headers={"Authorization": f"Bearer {emulator.token}"},
        timeout=10,
    )
    return str(answer.json().get("jobid"))


def test_films_play_and_go_on_while_the_page_follows_what_happens(
    page: Page, emulator: EmulatorClient, keep_picture: Callable[[str, Image.Image], Path]
) -> None:
    submit(emulator, message="FIRST", replyRef="my_dag/submit")
    submit(emulator, message="SECOND", prompt="a storm over the bay, overhead shot -w 2")
    emulator.configure(seconds=300)
    page.open("/")
    page.find("//figure[contains(., 'FIRST') and contains(., 'my_dag/submit')]", "the first film")
    page.script("for (const v of document.querySelectorAll('video')) v.play()")
    position = "return document.querySelector('#films figure:last-child video').currentTime"
    first = page.wait(lambda: page.script(position), "the film to start")
    page.script("window.mine = document.querySelector('#films figure:last-child video')")

    running = submit(
        emulator, message="THIRD", replyRef="my_dag/other", replyUrl="http://127.0.0.1:9/h?token=of-this-submit"
    )
    emulator.fault("submit", "queue_full", times=2)
    emulator.fault("callback", "lost", times=5, share=0.5)
    page.find("//*[@id='running']//tr[contains(., 'THIRD') and contains(., 'my_dag/other')]", "the running job")
    page.find("//*[@id='running']//*[.='started']", "its state")
    page.find("//*[@id='behaviour' and contains(., 'runs 1 of 3')]", "the room on the channel")
    page.find("//*[@id='faults']//tr[contains(., 'queue_full') and contains(., '2')]", "the fault")
    emulator.advance(jobid=running, status="progress", content="33%")
    page.find("//*[@id='running']//tr[contains(., '33%')]", "its progress")
    keep_picture("emulator-page.png", page.picture())

    emulator.advance(jobid=running, status="completed")
    page.find("//figure[contains(., 'THIRD')]", "the film of a job that has just completed")
    page.find("//*[@id='callbacks']//tr[contains(., 'lost') or contains(., 'token=***')]", "its callback")
    assert page.script("return window.mine.isConnected && !window.mine.paused")
    page.wait(lambda: page.script("return window.mine.currentTime") != first, "the first film to go on")
    assert "of-this-submit" not in page.driver.page_source
    page.keep("watched")
    assert json.loads((page.folder / "console.json").read_text()) == [], "the browser complained"


def test_what_others_wrote_is_shown_and_does_nothing(page: Page, emulator: EmulatorClient) -> None:
    submit(emulator, message="<b>&\"'", prompt=HOSTILE, replyRef=HOSTILE)
    emulator.configure(seconds=300)
    running = submit(emulator, prompt=HOSTILE, replyRef=HOSTILE)
    emulator.advance(jobid=running, status="<b>odd", content=HOSTILE)
    emulator.fault("submit", "moderated", reason=HOSTILE)
    submit(emulator)
    emulator.fault("submit", "moderated", reason=HOSTILE)
    requests.get(f"{emulator.url}/v1/pika/jobs/", {"jobid": HOSTILE}, timeout=10)
    page.open("/")
    page.wait(lambda: page.text().count(HOSTILE) >= 6, "what was written")
    page.find("//*[@id='running']//*[.='<b>odd']", "a state nobody knows")
    assert page.script("return [document.title, document.images.length, document.scripts.length]") == [
        "Pika emulator",
        0,
        1,
    ]


def test_it_asks_nobody_else_and_changes_nothing(page: Page, emulator: EmulatorClient) -> None:
    submit(emulator)
    before = emulator.counters()
    page.open("/")
    page.find("//figure", "a film")
    asked = page.script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert all(name.startswith((emulator.url, "data:")) for name in asked)
    assert page.script("return document.querySelectorAll('form, button, input, a').length") == 0
    assert emulator.counters() == before
