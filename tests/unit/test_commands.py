"""What is sent: checking and building a call."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_pika.api import commands
from airflow_provider_pika.exceptions import PikaRequestError

EMOJI = "🎬"


def submit(**fields: Any) -> commands.Call:
    return commands.encrypt_text(**{"message": "HI", "prompt": "waves", **fields})


def test_all_text_fields_go_out_under_the_apis_names() -> None:
    call = submit(
        font="SANS SERIF",
        discord="secret",
        channel="123",
        max_jobs=3,
        reply_url="http://127.0.0.1/x",
        reply_ref="ref",
    )
    assert call.fields == {
        "message": "HI",
        "prompt": "waves",
        "font": "SANS SERIF",
        "discord": "secret",
        "channel": "123",
        "maxJobs": "3",
        "replyUrl": "http://127.0.0.1/x",
        "replyRef": "ref",
    }


def test_a_submit_is_a_post_to_the_commands_path() -> None:
    call = submit()
    assert (call.method, call.target, call.is_submit) == ("POST", "/v1/pika/encrypt_text", True)


@pytest.mark.parametrize("empty", [None, ""])
@pytest.mark.parametrize("name", ["font", "discord", "channel", "max_jobs", "reply_url", "reply_ref"])
def test_an_empty_optional_field_is_omitted(name: str, empty: str | None) -> None:
    assert submit(**{name: empty}).fields == {"message": "HI", "prompt": "waves"}


@pytest.mark.parametrize("font", ["MODERN", "COMICS", "SANS SERIF", "BAUHAUS", "RETRO"])
def test_every_documented_font_is_taken(font: str) -> None:
    assert submit(font=font).fields["font"] == font


@pytest.mark.parametrize("font", ["ARIAL", "modern", " MODERN", "SANS_SERIF"])
def test_another_font_is_refused_with_the_ones_there_are(font: str) -> None:
    with pytest.raises(
        PikaRequestError, match=r"font is .*MODERN, COMICS, SANS SERIF, BAUHAUS, RETRO.*Nothing was sent"
    ):
        submit(font=font)


@pytest.mark.parametrize(
    ("text", "length"),
    [("", 0), ("abc", 3), ("é", 1), (EMOJI, 2), ("e\u0301", 2), ("👩‍🚀", 5), ("\ud83c", 1)],
)
def test_length_is_counted_in_utf16_units(text: str, length: int) -> None:
    assert commands.utf16_length(text) == length


@pytest.mark.parametrize(
    ("field", "name", "limit"),
    [
        ("message", "message", 20),
        ("prompt", "prompt", 1500),
        ("reply_url", "replyUrl", 1024),
        ("reply_ref", "replyRef", 1024),
    ],
)
class TestLimits:
    @pytest.mark.parametrize("unit", ["x", "é", EMOJI])
    def test_a_text_of_just_the_limit_is_sent(self, field: str, name: str, limit: int, unit: str) -> None:
        text = unit * (limit // commands.utf16_length(unit))
        assert submit(**{field: text}).fields[name] == text

    @pytest.mark.parametrize("longer", ["x", EMOJI])
    def test_one_over_is_refused_with_field_length_and_limit(
        self, field: str, name: str, limit: int, longer: str
    ) -> None:
        text = "x" * (limit + 1 - commands.utf16_length(longer)) + longer
        with pytest.raises(PikaRequestError, match=rf"^{field} is {limit + 1} .*limit is {limit} .*Nothing was sent"):
            submit(**{field: text})


@pytest.mark.parametrize("field", ["message", "prompt"])
@pytest.mark.parametrize("empty", ["", None, "  \n"])
def test_a_required_text_that_is_empty_is_refused(field: str, empty: str | None) -> None:
    with pytest.raises(PikaRequestError, match=rf"^{field} is empty; it needs 1 to (20|1500) .*Nothing was sent"):
        submit(**{field: empty})


@pytest.mark.parametrize("field", ["message", "prompt", "font", "discord", "channel", "reply_url", "reply_ref"])
@pytest.mark.parametrize("value", [5, True, b"bytes", ["a"], {"a": 1}])
def test_what_is_no_text_is_refused(field: str, value: object) -> None:
    with pytest.raises(PikaRequestError, match=rf"^{field} must be a text, got {type(value).__name__}"):
        submit(**{field: value})


def test_a_refusal_does_not_quote_a_discord_token() -> None:
    with pytest.raises(PikaRequestError) as caught:
        submit(discord="s3cret" * 1000, channel="1")
    assert "s3cret" not in str(caught.value)


def test_the_fields_are_not_in_a_calls_repr() -> None:
    assert "s3cret" not in repr(submit(discord="s3cret", channel="1"))


def test_a_discord_token_alone_is_refused() -> None:
    with pytest.raises(PikaRequestError, match=r"without a channel.*Nothing was sent"):
        submit(discord="secret")


@pytest.mark.parametrize("given", [1, 10, "1", "10", " 3 "])
def test_max_jobs_from_1_to_10_is_taken_as_number_or_text(given: object) -> None:
    assert submit(max_jobs=given).fields["maxJobs"] == str(given).strip()


@pytest.mark.parametrize("given", [0, 11, -1, "0", "11", "three", "3.0", 3.0, True, False, [3], {}, "9" * 5000])
def test_max_jobs_that_is_no_whole_number_from_1_to_10_is_refused(given: object) -> None:
    with pytest.raises(PikaRequestError, match=r"max_jobs is .* from 1 to 10\. Nothing was sent"):
        submit(max_jobs=given)


@pytest.mark.parametrize("field", ["message", "prompt", "reply_ref"])
def test_half_an_emoji_is_refused_because_no_utf8_can_hold_it(field: str) -> None:
    with pytest.raises(PikaRequestError, match=field):
        submit(**{field: "half \ud83c"})


@pytest.mark.parametrize("jobid", [None, "", "None", " ", " None "])
@pytest.mark.parametrize("build", [commands.get_job, commands.cancel_job, commands.checked_jobid])
def test_a_missing_jobid_is_refused_with_a_word_about_skipped_upstreams(build: Any, jobid: str | None) -> None:
    with pytest.raises(PikaRequestError, match=r"jobid is missing.*skipped.*Nothing was asked"):
        build(jobid)


@pytest.mark.parametrize("jobid", [["job:1"], 7, b"job:1", {"jobid": "job:1"}, False, 0])
def test_a_jobid_that_is_no_text_is_refused(jobid: Any) -> None:
    with pytest.raises(PikaRequestError, match=r"must be a text, got \w+.*Nothing was asked"):
        commands.checked_jobid(jobid)


def test_a_jobid_loses_only_the_spaces_around_it() -> None:
    assert commands.checked_jobid(" job:1 user ") == "job:1 user"


@pytest.mark.parametrize(
    ("build", "path"), [(commands.get_job, "/v1/pika/jobs/"), (commands.cancel_job, "/v1/pika/jobs/cancel/")]
)
def test_a_jobid_is_percent_encoded_behind_a_slash(build: Any, path: str) -> None:
    call = build("job:20241218-user:1/a&b=c#d e%f+ü")
    assert call.target == f"{path}?jobid=job%3A20241218-user%3A1%2Fa%26b%3Dc%23d%20e%25f%2B%C3%BC"
    assert (call.method, call.is_submit, call.jobid) == ("GET", False, "job:20241218-user:1/a&b=c#d e%f+ü")


@pytest.mark.parametrize(
    ("call", "target"),
    [
        (commands.list_jobs(), "/v1/pika/jobs"),
        (commands.list_accounts(), "/v1/pika/account"),
        (commands.check_token(), "/v2/account"),
    ],
)
def test_calls_without_a_parameter_have_no_slash_at_the_end(call: commands.Call, target: str) -> None:
    assert (call.method, call.target, call.fields, call.jobid) == ("GET", target, {}, None)
