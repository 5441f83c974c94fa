"""A run of the smallest example as a person watches it: deferred while the job runs, then a button to its film."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from airflow_provider_pika.emulator.client import EmulatorClient
from dev.harness.local_airflow import LocalAirflow
from tests.browser.conftest import TOKEN
from tests.browser.page import Page

DAG, RUN = "pika_smallest", "first_film"
FILM_SIZE = (640, 360)


@pytest.fixture(scope="module")
def deferred(airflow: LocalAirflow, emulator: EmulatorClient) -> str:
    """Start a run whose job does not end by itself, see it defer, and return the path of its page."""
    airflow.runs.wait_dag(DAG)
    airflow.api.trigger(DAG, run_id=RUN)
    airflow.runs.wait_task(DAG, RUN, "wait", ["deferred"])
    return f"/dags/{DAG}/runs/{RUN}"


@pytest.fixture(scope="module")
def finished(deferred: str, airflow: LocalAirflow, emulator: EmulatorClient) -> str:
    """Let the job end, see the run succeed, and return the path of its page."""
    emulator.advance(seconds=3600)
    airflow.runs.wait(DAG, RUN, timeout=60)
    return deferred


def badge(page: Page, state: str) -> None:
    page.find(f"//*[@data-testid='header-card']//*[@data-testid='state-badge' and .='{state}']", f"the state {state}")


def test_the_grid_and_the_task_show_the_deferred_wait(page: Page, deferred: str) -> None:
    page.open(f"/dags/{DAG}")
    page.hover(f"//a[@id='grid-{RUN}-wait']", "the task's square in the grid")
    tip = page.find("//*[@role='tooltip' and contains(., 'State')]", "what the grid says of the square")
    assert "deferred" in tip.text.lower()
    page.open(f"{deferred}/tasks/wait/details")
    badge(page, "Deferred")
    page.find("//td[.='PikaJobSensor']", "the task's details")
    assert "Pika video" not in page.text()


def test_the_link_opens_a_playing_film(
    page: Page, finished: str, emulator: EmulatorClient, keep_picture: Callable[[str, Image.Image], Path]
) -> None:
    """The button stands where there is a video, opens the film itself in a new window, and the film runs."""
    page.open(f"{finished}/tasks/submit/details")
    badge(page, "Success")
    page.find("//td[.='EncryptTextOperator']", "the task's details")
    assert "Pika video" not in page.text()

    page.open(f"{finished}/tasks/wait/details")
    badge(page, "Success")
    link = str(page.button("Pika video").get_attribute("href"))
    assert link.startswith(f"{emulator.url}/attachments/")
    task = page.picture()

    page.follow("Pika video")
    assert page.driver.current_url == link
    assert page.script("return document.contentType") == "video/mp4"
    ready = "const v = document.querySelector('video'); return v && v.readyState >= 3 && {error: v.error, size: "
    film = page.wait(lambda: page.script(f"{ready}[v.videoWidth, v.videoHeight], length: v.duration}}"), "a film")
    assert film["error"] is None
    assert film["length"] == pytest.approx(3, abs=0.2)
    assert tuple(film["size"]) == FILM_SIZE

    # From the start and muted, as a browser may keep a film with sound from starting by itself.
    page.script("const v = document.querySelector('video'); v.muted = true; v.loop = true; v.currentTime = 0; v.play()")
    position = "return document.querySelector('video').currentTime"
    first = page.wait(lambda: page.script(position), "the film to start")
    page.wait(lambda: page.script(position) > first + 0.5, "the film to go on")
    assert TOKEN not in page.driver.page_source

    page.resize(FILM_SIZE)
    page.script("const v = document.querySelector('video'); v.pause(); v.controls = false; v.currentTime = 1.5")
    page.wait(lambda: not page.script("return document.querySelector('video').seeking"), "the film's middle")
    keep_picture("task-with-film.png", with_film(task, page.picture()))


def with_film(task: Image.Image, film: Image.Image) -> Image.Image:
    """Lay the film's window over the lower right of the task's page, as a person would have both on the screen."""
    small = film.convert("RGB").resize((480, 270), Image.Resampling.LANCZOS)
    frame = ImageOps.expand(small, border=4, fill="#1f2937")
    both = task.convert("RGB")
    both.paste(frame, (both.width - frame.width - 24, both.height - frame.height - 24))
    return both
