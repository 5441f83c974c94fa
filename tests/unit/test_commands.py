"""What is sent: the commands' specs, held to the contract's own figures, and the calls built from them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_pika.api import commands
from airflow_provider_pika.api.commands import COMMANDS, Call, prepare
from airflow_provider_pika.api.fields import File, checked_jobid, utf16_length
from airflow_provider_pika.exceptions import PikaRequestError

EMOJI = "🎬"
# The contract's table, in its own names and figures, apart from the specs: a wrong spec must fail.
ACCOUNT = {"discord": 1024, "channel": 1024}
EVERY = {"maxJobs": 10, "replyUrl": 1024, "replyRef": 1024}
FONTS = ["MODERN", "COMICS", "SANS SERIF", "BAUHAUS", "RETRO"]
CONTRACT: dict[str, tuple[set[str], dict[str, Any]]] = {
    "encrypt_text": (
        {"message", "prompt"},
        {"message": 20, "prompt": 1500, "font": FONTS, "image": "file", **ACCOUNT, **EVERY},
    ),
    "create": ({"prompt"}, {"prompt": 1500, "image": "file", **ACCOUNT, **EVERY}),
    "animate": ({"image"}, {"image": "file", "prompt": 1500, **ACCOUNT, **EVERY}),
    "encrypt_image": (
        {"message", "prompt"},
        {"message": "file", "prompt": 1500, "image": "file", **ACCOUNT, **EVERY},
    ),
    "button": ({"jobid", "button"}, {"jobid": "job", "button": ["retry"], "discord": 1024, **EVERY}),
}
GOOD: dict[str, dict[str, Any]] = {
    "encrypt_text": {"message": "HI", "prompt": "waves"},
    "create": {"prompt": "waves"},
    "animate": {"image": "/a.png"},
    "encrypt_image": {"message": "/m.png", "prompt": "waves"},
    "button": {"jobid": "job:1"},
}
TEXTS = [
    (name, field, limit)
    for name, (_, fields) in CONTRACT.items()
    for field, limit in fields.items()
    if isinstance(limit, int) and field != "maxJobs"
]
FILES = [(name, field) for name, (_, fields) in CONTRACT.items() for field, kind in fields.items() if kind == "file"]
every_command = pytest.mark.parametrize("name", CONTRACT)


def call(name: str, **fields: Any) -> Call:
    given = GOOD[name] | fields
    if given.get("discord") and name != "button":
        given.setdefault("channel", "1")
    return prepare(COMMANDS[name], **given)


def python_name(field: str) -> str:
    return re.sub("[A-Z]", lambda found: f"_{found.group().lower()}", field)


def test_the_contracts_commands_are_there() -> None:
    assert list(COMMANDS) == list(CONTRACT)


@every_command
def test_a_spec_has_the_contracts_fields_in_its_order_and_requires_the_same(name: str) -> None:
    required, fields = CONTRACT[name]
    spec = COMMANDS[name]
    own = len(fields) - len(EVERY) - len(ACCOUNT) * ("channel" in fields)
    assert [field.api_name for field in spec.fields[:own]] == list(fields)[:own]
    assert [field.api_name for field in spec.fields] == list(fields)
    assert {field.api_name for field in spec.fields if field.required} == required
    assert [field.name for field in spec.fields] == [python_name(field) for field in fields]


@every_command
def test_a_specs_kinds_and_limits_are_the_contracts(name: str) -> None:
    for field in COMMANDS[name].fields:
        said = CONTRACT[name][1][field.api_name]
        assert field.is_file == isinstance(field.kind, File) == (said == "file")
        told = [getattr(field.kind, about, None) for about in ("limit", "most", "options")]
        if isinstance(said, int):
            assert said in told
        if isinstance(said, list):
            assert tuple(said) in told


@every_command
def test_a_submit_is_a_post_that_may_be_paid_and_names_no_job_as_its_own(name: str) -> None:
    """An answer without a jobid must never make a button's parent the new job."""
    made = call(name)
    assert (made.method, made.target, made.is_submit, made.jobid) == ("POST", f"/v1/pika/{name}", True, None)
    assert (COMMANDS[name].path, COMMANDS[name].verb) == (f"/v1/pika/{name}", f"pika-{name}")


@every_command
def test_everything_given_goes_out_under_the_apis_names_texts_and_files_apart(name: str) -> None:
    fields = CONTRACT[name][1]
    samples = {"maxJobs": 3, "font": "RETRO", "button": "retry", "jobid": "job:7"}
    given = {field: samples.get(field, "/x.png" if kind == "file" else "text") for field, kind in fields.items()}
    made = call(name, **{python_name(field): value for field, value in given.items()})
    assert made.files == {field: value for field, value in given.items() if fields[field] == "file"}
    assert made.fields == {field: str(value) for field, value in given.items() if fields[field] != "file"}


@every_command
def test_an_empty_optional_field_is_omitted(name: str) -> None:
    required, fields = CONTRACT[name]
    whole = call(name)
    for empty in (None, ""):
        optional = {python_name(field): empty for field in fields if field not in required}
        assert call(name, **optional) == whole
    assert {*whole.fields, *whole.files} == required


@pytest.mark.parametrize("font", FONTS)
def test_every_documented_font_is_taken_and_a_lower_case_one_is_sent_in_upper_case(font: str) -> None:
    for given in (font, font.lower(), font.title()):
        assert call("encrypt_text", font=given).fields["font"] == font


@pytest.mark.parametrize("font", ["ARIAL", " MODERN", "SANS_SERIF"])
def test_another_font_is_refused_with_the_ones_there_are(font: str) -> None:
    with pytest.raises(
        PikaRequestError, match=rf"font is '{font}'.*MODERN, COMICS, SANS SERIF, BAUHAUS, RETRO.*Nothing was sent"
    ):
        call("encrypt_text", font=font)


@pytest.mark.parametrize("button", ["V1", "remix", "", None])
def test_another_button_is_refused(button: str | None) -> None:
    with pytest.raises(PikaRequestError, match=r"button is .*but must be one of retry\. Nothing was sent"):
        call("button", button=button)


@pytest.mark.parametrize(
    ("text", "length"),
    [("", 0), ("abc", 3), ("é", 1), (EMOJI, 2), ("e\u0301", 2), ("👩‍🚀", 5), ("\ud83c", 1)],
)
def test_length_is_counted_in_utf16_units(text: str, length: int) -> None:
    assert utf16_length(text) == length


@pytest.mark.parametrize(("name", "field", "limit"), TEXTS)
class TestTexts:
    @pytest.mark.parametrize("unit", ["x", "é", EMOJI])
    def test_just_the_limit_is_sent(self, name: str, field: str, limit: int, unit: str) -> None:
        text = unit * (limit // utf16_length(unit))
        assert call(name, **{python_name(field): text}).fields[field] == text

    @pytest.mark.parametrize("longer", ["x", EMOJI])
    def test_one_over_is_refused_with_field_length_and_limit(
        self, name: str, field: str, limit: int, longer: str
    ) -> None:
        text = "x" * (limit + 1 - utf16_length(longer)) + longer
        said = rf"^{python_name(field)} is {limit + 1} .*limit is {limit} .*Nothing was sent"
        with pytest.raises(PikaRequestError, match=said):
            call(name, **{python_name(field): text})

    @pytest.mark.parametrize("value", [5, True, b"bytes", ["a"], {"a": 1}])
    def test_what_is_no_text_is_refused(self, name: str, field: str, limit: int, value: object) -> None:
        said = rf"^{python_name(field)} must be a text, got {type(value).__name__}"
        with pytest.raises(PikaRequestError, match=said):
            call(name, **{python_name(field): value})

    def test_half_an_emoji_is_refused_because_no_utf8_can_hold_it(self, name: str, field: str, limit: int) -> None:
        with pytest.raises(PikaRequestError, match=python_name(field)):
            call(name, **{python_name(field): "half \ud83c"})


@pytest.mark.parametrize(("name", "field", "limit"), [text for text in TEXTS if text[1] in CONTRACT[text[0]][0]])
@pytest.mark.parametrize("empty", ["", None, "  \n"])
def test_a_required_text_that_is_empty_is_refused(name: str, field: str, limit: int, empty: str | None) -> None:
    with pytest.raises(
        PikaRequestError, match=rf"^{field} is (empty|missing); it needs 1 to {limit} .*Nothing was sent"
    ):
        call(name, **{field: empty})


@pytest.mark.parametrize(("name", "field"), FILES)
class TestFiles:
    def test_a_path_or_a_url_is_told_as_it_was_given(self, name: str, field: str) -> None:
        for given in ("relative.png", "s3://bucket/a.png", "https://127.0.0.1/a.png?sig=x"):
            assert call(name, **{field: given}).files[field] == given
        assert call(name, **{field: Path("/tmp/a.png")}).files[field] == "/tmp/a.png"  # noqa: S108 - never opened

    @pytest.mark.parametrize("value", [5, b"bytes", ["a.png"], Path])
    def test_what_is_neither_is_refused(self, name: str, field: str, value: object) -> None:
        with pytest.raises(PikaRequestError, match=rf"^{field} must be a path or a URL, got .*Nothing was sent"):
            call(name, **{field: value})

    def test_a_signed_url_is_not_in_a_calls_repr(self, name: str, field: str) -> None:
        assert "s3cret" not in repr(call(name, **{field: "https://127.0.0.1/?sig=s3cret"}))


@pytest.mark.parametrize(("name", "field"), [("animate", "image"), ("encrypt_image", "message")])
@pytest.mark.parametrize("empty", ["", None, " "])
def test_a_required_file_that_is_missing_is_refused(name: str, field: str, empty: str | None) -> None:
    with pytest.raises(PikaRequestError, match=rf"^{field} is missing: give a local path.*Nothing was sent"):
        call(name, **{field: empty})


def test_a_refusal_does_not_quote_a_discord_token() -> None:
    with pytest.raises(PikaRequestError) as caught:
        call("encrypt_text", discord="s3cret" * 1000)
    assert "s3cret" not in str(caught.value)


def test_the_fields_are_not_in_a_calls_repr() -> None:
    assert "s3cret" not in repr(call("encrypt_text", discord="s3cret"))


@pytest.mark.parametrize("name", [name for name, (_, fields) in CONTRACT.items() if "channel" in fields])
def test_a_discord_token_alone_is_refused(name: str) -> None:
    with pytest.raises(PikaRequestError, match=r"without a channel.*Nothing was sent"):
        call(name, discord="secret", channel=None)


def test_a_button_has_its_jobs_channel_and_may_bring_a_token_alone() -> None:
    assert call("button", discord="s3cret").fields["discord"] == "s3cret"


def test_a_field_no_command_has_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(TypeError, match="channel"):
        call("button", channel="1")


@every_command
class TestMaxJobs:
    @pytest.mark.parametrize("given", [1, 10, "1", "10", " 3 "])
    def test_from_1_to_10_is_taken_as_number_or_text(self, name: str, given: object) -> None:
        assert call(name, max_jobs=given).fields["maxJobs"] == str(given).strip()

    @pytest.mark.parametrize("given", [0, 11, -1, "0", "11", "three", "3.0", 3.0, True, False, [3], {}, "9" * 5000])
    def test_anything_else_is_refused(self, name: str, given: object) -> None:
        with pytest.raises(PikaRequestError, match=r"max_jobs is .* from 1 to 10\. Nothing was sent"):
            call(name, max_jobs=given)


@pytest.mark.parametrize("jobid", [None, "", "None", " ", " None "])
@pytest.mark.parametrize(
    "build", [commands.get_job, commands.cancel_job, checked_jobid, lambda jobid: call("button", jobid=jobid)]
)
def test_a_missing_jobid_is_refused_with_a_word_about_skipped_upstreams(build: Any, jobid: str | None) -> None:
    with pytest.raises(PikaRequestError, match=r"jobid is missing.*skipped.*Nothing was asked"):
        build(jobid)


@pytest.mark.parametrize("jobid", [["job:1"], 7, b"job:1", {"jobid": "job:1"}, False, 0])
def test_a_jobid_that_is_no_text_is_refused(jobid: Any) -> None:
    with pytest.raises(PikaRequestError, match=r"must be a text, got \w+.*Nothing was asked"):
        checked_jobid(jobid)


def test_a_jobid_loses_only_the_spaces_around_it() -> None:
    assert checked_jobid(" job:1 user ") == "job:1 user"


@pytest.mark.parametrize(
    ("build", "path"), [(commands.get_job, "/v1/pika/jobs/"), (commands.cancel_job, "/v1/pika/jobs/cancel/")]
)
def test_a_jobid_is_percent_encoded_behind_a_slash(build: Any, path: str) -> None:
    made = build("job:20241218-user:1/a&b=c#d e%f+ü")
    assert made.target == f"{path}?jobid=job%3A20241218-user%3A1%2Fa%26b%3Dc%23d%20e%25f%2B%C3%BC"
    assert (made.method, made.is_submit, made.jobid) == ("GET", False, "job:20241218-user:1/a&b=c#d e%f+ü")


@pytest.mark.parametrize(
    ("made", "target"),
    [
        (commands.list_jobs(), "/v1/pika/jobs"),
        (commands.list_accounts(), "/v1/pika/account"),
        (commands.check_token(), "/v2/account"),
    ],
)
def test_calls_without_a_parameter_have_no_slash_at_the_end(made: Call, target: str) -> None:
    assert (made.method, made.target, made.fields, made.jobid) == ("GET", target, {}, None)


class TestAccounts:
    def test_reading_and_deleting_name_the_channel_in_the_path_and_send_no_body(self) -> None:
        for made, method in ((commands.get_account("42"), "GET"), (commands.delete_account("42"), "DELETE")):
            assert (made.method, made.target, made.json, made.fields) == (method, "/v1/pika/account/42", None, {})

    def test_setting_is_a_post_of_json_that_is_not_paid_for(self) -> None:
        made = commands.set_account("42", discord="s3cret", max_jobs="3")
        assert (made.method, made.target, made.is_submit) == ("POST", "/v1/pika/account/42", False)
        assert made.json == {"discord": "s3cret", "channel": "42", "maxJobs": 3}
        assert "s3cret" not in repr(made)

    def test_a_channel_cannot_break_out_of_the_path(self) -> None:
        assert commands.delete_account("a/../b?c#d").target == "/v1/pika/account/a%2F..%2Fb%3Fc%23d"

    @pytest.mark.parametrize("channel", [".", "..", "None"])
    def test_a_channel_that_is_none_is_refused(self, channel: str) -> None:
        """An HTTP client makes ``DELETE /account/..`` a call about something else."""
        for build in (commands.get_account, commands.delete_account):
            with pytest.raises(PikaRequestError, match=r"channel is .*Nothing was sent"):
                build(channel)

    @pytest.mark.parametrize(
        ("fields", "said"),
        [
            ({"channel": ""}, "^channel is empty"),
            ({"channel": None}, "^channel is missing"),
            ({"channel": 42}, "^channel must be a text, got int"),
            ({"discord": ""}, "^discord is empty"),
            ({"discord": None}, "^discord is missing"),
            ({"max_jobs": None}, "^max_jobs is None, but must be a whole number from 1 to 10"),
            ({"max_jobs": 11}, "^max_jobs is 11, but must be"),
        ],
    )
    def test_everything_is_required(self, fields: dict[str, Any], said: str) -> None:
        with pytest.raises(PikaRequestError, match=said):
            commands.set_account(**{"channel": "42", "discord": "s3cret", "max_jobs": 3} | fields)
