"""The connection form in a real browser: filled in, saved, tested, and tested again with a wrong token."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL.Image import Image

from airflow_provider_pika.emulator.client import EmulatorClient
from dev.harness.local_airflow import LocalAirflow
from tests.browser.page import Page

# Not pika_default, which the environment defines and which no form could change.
CONN_ID = "pika_studio"
EXTRAS = ["Discord channel", "Discord token", "Max jobs", "Read timeout (seconds)", "Callback URL"]


@pytest.fixture
def form(page: Page, airflow: LocalAirflow) -> Iterator[Page]:
    """Open the form for a new connection of type Pika."""
    page.resize((1280, 960))  # the whole form, with its button
    page.open("/connections")
    page.press("Add Connection")
    page.fill("Connection ID", CONN_ID)
    page.choose("Connection Type", "Pika")
    yield page
    saved = airflow.api.request("GET", "/connections")["connections"]
    if CONN_ID in [connection["connection_id"] for connection in saved]:
        airflow.api.request("DELETE", f"/connections/{CONN_ID}")


def test_the_form_asks_for_what_a_pika_connection_needs(form: Page) -> None:
    assert form.field("API token").get_attribute("type") == "password"
    assert "https://api.useapi.net" in str(form.field("Root URL").get_attribute("placeholder"))
    assert "Login" not in form.text()
    form.press("Extra Fields")
    kinds = {label: form.field(label).get_attribute("type") for label in EXTRAS}
    assert kinds.pop("Discord token") == "password"
    assert set(kinds.values()) == {"text"}
    assert "Only for a channel that is not configured at the API" in form.text()


def test_a_connection_is_filled_in_saved_and_tested(
    form: Page, emulator: EmulatorClient, airflow: LocalAirflow, keep_picture: Callable[[str, Image], Path]
) -> None:
    """What the Test button says comes from the emulator; the token is on no page after it was typed."""
    channel, address = "1000000000000000001", urlsplit(emulator.url)
    form.press("Extra Fields")
    form.fill("Discord channel", channel)
    form.fill("Max jobs", "3")
    form.fill("Read timeout (seconds)", "15")
    form.press("Standard Fields")
    form.fill("Description", "The films of the studio")
    form.fill("Root URL", f"http://{address.hostname}")
    form.fill("API token", emulator.token)
    # In a field of its own rather than within the root URL: Airflow 3.3.1 and 3.3.2 refuse to test a connection without
    # a port, with a bare "Bad Request" (apache/airflow#73298).
    form.fill("Port", str(address.port))
    keep_picture("connection-form.png", form.picture(of="//*[@role='dialog']"))

    form.press("Save")
    form.notice("Create Connection Request Submitted")
    (saved,) = airflow.api.request("GET", "/connections")["connections"]
    assert (saved["connection_id"], saved["conn_type"]) == (CONN_ID, "pika")
    assert (saved["host"], saved["port"]) == (f"http://{address.hostname}", address.port)
    extra = json.loads(saved["extra"])
    assert extra == {"channel": channel, "discord_token": None, "max_jobs": 3, "timeout": 15, "callback_url": None}

    form.press("Test Connection")
    assert form.notice("Test Connection Successful") == f"The API at {emulator.url} accepts the token."
    assert emulator.requests()[-1]["path"] == "/v2/account"

    form.press("Edit Connection")
    form.fill("API token", "user:1-thisiswrong")
    assert emulator.token not in form.driver.page_source
    form.press("Save")
    form.notice("Update Connection Request Submitted")
    form.press("Test Connection")
    said = form.notice("Test Connection Failed")
    assert f"{emulator.url}/v2/account" in said
    assert "401" in said
    assert "Put a valid API token into the password of the connection" in said
    assert "thisiswrong" not in said
    assert emulator.token not in form.driver.page_source
