"""The emulator's account routes over HTTP, held to the contract."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.plain_api import Api, assert_error

if TYPE_CHECKING:
    import requests

    from airflow_provider_pika.emulator.client import EmulatorClient

DISCORD = "abc-nobody-must-see-this-xyz"
GOOD = {"discord": DISCORD, "channel": "42", "maxJobs": 2}


@pytest.fixture
def api(pika_emulator: EmulatorClient) -> Api:
    return Api(pika_emulator)


def post(api: Api, body: Any, channel: str = "42") -> requests.Response:
    return api.session.post(f"{api.url}/v1/pika/account/{channel}", json=body, timeout=10)


def delete(api: Api, channel: str) -> requests.Response:
    return api.session.delete(f"{api.url}/v1/pika/account/{channel}", timeout=10)


def test_the_accounts_are_told_by_channel_with_discord_masked(api: Api, pika_emulator: EmulatorClient) -> None:
    pika_emulator.configure(channels={"1": 3})
    account = {"channel": "1", "discord": "<emu…secured…unt>", "maxJobs": 3}
    assert api.get("/v1/pika/account").json() == {"1": account}
    assert api.get("/v1/pika/account/1").json() == account
    assert_error(api.get("/v1/pika/account/2"), 404, "Unable to locate account 2")


def test_no_account_at_all_is_a_404_without_a_body(api: Api, pika_emulator: EmulatorClient) -> None:
    pika_emulator.configure(channels={})
    answer = api.get("/v1/pika/account")
    assert (answer.status_code, answer.content) == (404, b"")


def test_an_account_is_added_used_changed_and_deleted(api: Api, pika_emulator: EmulatorClient) -> None:
    pika_emulator.configure(seconds=30)
    added = post(api, GOOD)
    assert (added.status_code, added.content) == (204, b"")
    assert api.get("/v1/pika/account/42").json() == GOOD | {"discord": "<abc…secured…xyz>"}
    job = api.submit({"message": "HI", "prompt": "x", "channel": "42"}).json()
    assert (job["channel"], job["discord"], job["maxJobs"]) == ("42", "<abc…secured…xyz>", 2)
    assert post(api, GOOD | {"maxJobs": 1}).status_code == 204
    assert api.submit({"message": "HI", "prompt": "x", "channel": "42"}).status_code == 429
    gone = delete(api, "42")
    assert (gone.status_code, gone.content) == (204, b"")
    assert_error(delete(api, "42"), 404, "Unable to locate account 42")
    assert_error(api.submit({"message": "HI", "prompt": "x", "channel": "42"}), 400, "not configured")
    assert "42" not in api.get("/v1/pika/account").json()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (None, "must be a JSON object"),
        ([GOOD], "must be a JSON object"),
        (GOOD | {"discord": ""}, "discord is missing"),
        ({"channel": "42", "maxJobs": 2}, "discord is missing"),
        (GOOD | {"discord": 5}, "discord must be a text"),
        ({"discord": DISCORD, "maxJobs": 2}, "channel is missing"),
        (GOOD | {"channel": "43"}, "channel must be the one of the path"),
        ({"discord": DISCORD, "channel": "42"}, "maxJobs is missing"),
        (GOOD | {"maxJobs": 0}, "maxJobs must be a whole number from 1 to 10"),
        (GOOD | {"maxJobs": 11}, "maxJobs must be a whole number from 1 to 10"),
        (GOOD | {"maxJobs": "2"}, "maxJobs must be a whole number from 1 to 10"),
    ],
)
def test_a_wrong_body_is_a_400_that_names_the_field_and_not_the_token(api: Api, body: Any, said: str) -> None:
    answer = post(api, body)
    assert_error(answer, 400, said)
    assert DISCORD not in answer.text
    assert_error(api.get("/v1/pika/account/42"), 404, "Unable to locate")


def test_a_discord_token_is_remembered_nowhere(api: Api, pika_emulator: EmulatorClient) -> None:
    post(api, GOOD)
    assert DISCORD not in str([pika_emulator.requests(), pika_emulator.counters()])


def test_changing_accounts_needs_the_token_and_counts_as_no_submit(api: Api, pika_emulator: EmulatorClient) -> None:
    del api.session.headers["Authorization"]
    for answer in (post(api, GOOD), delete(api, "1000000000000000001")):
        assert_error(answer, 401, "Unauthorized")
    counters = pika_emulator.counters()
    assert (counters["submits"]["asked"], counters["accounts"]) == (0, 2)


@pytest.mark.parametrize(("kind", "status"), [("server_error", 500), ("rate_limit", 429), ("bad_request", 400)])
def test_a_scripted_fault_strikes_a_change_before_it_is_made(
    api: Api, pika_emulator: EmulatorClient, kind: str, status: int
) -> None:
    pika_emulator.fault("account", kind)
    assert post(api, GOOD).status_code == status
    assert api.get("/v1/pika/account/42").status_code == 404


def test_an_answer_without_a_body_has_no_shape_to_distort(api: Api, pika_emulator: EmulatorClient) -> None:
    pika_emulator.fault("account", "list_instead")
    answer = post(api, GOOD)
    assert (answer.status_code, answer.content) == (204, b"")
    assert api.get("/v1/pika/account/42").status_code == 200


def test_a_reset_brings_back_the_accounts_of_the_start(api: Api, pika_emulator: EmulatorClient) -> None:
    post(api, GOOD | {"channel": "1000000000000000001"}, "1000000000000000001")
    pika_emulator.reset()
    assert api.get("/v1/pika/account/1000000000000000001").json()["discord"] == "<emu…secured…unt>"
