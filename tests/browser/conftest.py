"""
Fixtures of the browser tests: one Airflow with the example DAGs, one emulator, and Debian's Chromium before them.

What a test looks at goes through :class:`tests.browser.page.Page`. When one fails, a picture of the page, its source
and what the browser complained of are kept in the test's folder, and the failure says where.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from PIL.Image import Image

from airflow_provider_pika.emulator.client import EmulatorClient
from dev.harness.airflow_db import clean_env
from dev.harness.emulator import local_emulator
from dev.harness.local_airflow import LocalAirflow
from dev.harness.processes import Family, free_port, tail, wait_until
from tests.browser.page import Page, chromium_session

ROOT = Path(__file__).parents[2]
# Long and unlike anything else, so that a test can look for it where it must not be.
TOKEN = "user:4242-browsertesttokenthatmustnotshow"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every test here three minutes: the first one waits for Airflow to start."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(180))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Keep what the browser shows when a test fails, and name it in the report."""
    report = (yield).get_result()
    page = getattr(item, "funcargs", {}).get("page")
    if page and report.failed:
        report.sections.append(("what the browser showed", page.keep(item.name)))


@pytest.fixture(scope="session")
def chromedriver() -> tuple[str, str]:
    """Return the paths of chromium and its driver; without them skip, but never in CI."""
    found = shutil.which("chromium"), shutil.which("chromedriver")
    if all(found):
        return found
    missing = "Chromium is not installed: apt-get install chromium chromium-driver"
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)


@pytest.fixture(scope="session")
def emulator(chromedriver: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatorClient]:
    """Run the emulator; its jobs do not end before a test lets the time pass."""
    with local_emulator(tmp_path_factory.mktemp("emulator"), token=TOKEN) as client:
        client.configure(seconds=3600)
        yield client


@pytest.fixture(scope="session")
def airflow(emulator: EmulatorClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAirflow]:
    """Run Airflow with the example DAGs; they reach the emulator by the connection ``pika_default``."""
    home = tmp_path_factory.mktemp("airflow")
    with LocalAirflow(home, dags=ROOT / "example_dags", connections={"pika_default": emulator.connection}) as running:
        yield running


@pytest.fixture(scope="session")
def driver_url(chromedriver: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run chromedriver; it and every browser it starts end with this session, however that ends."""
    folder = tmp_path_factory.mktemp("chromedriver")
    # A home of its own: the launcher and the browser write there.
    family = Family(folder, {**clean_env(), "HOME": str(folder), "TMPDIR": str(folder)})
    port = free_port()
    try:
        family.start("chromedriver", [chromedriver[1], f"--port={port}"])

        def ready() -> bool:
            family.check()
            return "started successfully" in family.log("chromedriver").read_text(errors="replace")

        wait_until(ready, "chromedriver to start", 30, detail=lambda: tail(family.log("chromedriver")))
        yield f"http://127.0.0.1:{port}"
    finally:
        family.stop(grace=3)


@pytest.fixture
def page(airflow: LocalAirflow, chromedriver: tuple[str, str], driver_url: str, tmp_path: Path) -> Iterator[Page]:
    """Return a new browser with nothing remembered, which looks at Airflow."""
    with (
        TemporaryDirectory(prefix="pika-browser-", ignore_cleanup_errors=True) as profile,
        chromium_session(driver_url, chromedriver[0], Path(profile)) as driver,
    ):
        yield Page(driver, airflow.url, tmp_path)


@pytest.fixture
def keep_picture(tmp_path: Path) -> Callable[[str, Image], Path]:
    """Return a function that writes a picture for the README to the test's folder, and to ``$SCREENSHOTS`` if set."""

    def keep(name: str, picture: Image) -> Path:
        path = tmp_path / name
        picture.convert("RGB").save(path, optimize=True)
        if wanted := os.environ.get("SCREENSHOTS"):
            shutil.copy(path, Path(ROOT, wanted))
        return path

    return keep
