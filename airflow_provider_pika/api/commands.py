"""What can be asked of the Pika API v1, as values: no network and no Airflow in here.

A paid command is one dataclass, its spec: every field with its type, its limit and whether it is
required, spelled here and nowhere else. The hook sends what these functions return, and the emulator
checks what it is sent against the same specs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Generic, ParamSpec
from urllib.parse import quote

from airflow_provider_pika.api.fields import (
    Choice,
    Field,
    File,
    JobId,
    Text,
    WholeNumber,
    checked_jobid,
    fields_of,
)
from airflow_provider_pika.exceptions import PikaRequestError

JOBS_PATH = "/v1/pika/jobs"
CANCEL_PATH = "/v1/pika/jobs/cancel"
ACCOUNT_PATH = "/v1/pika/account"
CHECK_PATH = "/v2/account"

FONTS = ("MODERN", "COMICS", "SANS SERIF", "BAUHAUS", "RETRO")
BUTTONS = ("retry",)
MESSAGE_LIMIT = 20
PROMPT_LIMIT = 1500
REPLY_LIMIT = 1024
MAX_JOBS_LIMIT = 10
# Not the API's, which names none: a larger image is refused before it is sent.
IMAGE_MAX_BYTES = 25 * 2**20

P = ParamSpec("P")


@dataclass(frozen=True)
class Call:
    """
    One request to the API.

    :param purpose: what the call is for, in the words an error message uses
    :param method: the HTTP method
    :param target: path and query below the root URL, percent-encoded
    :param fields: the text parts of a submit's multipart body
    :param jobid: the job asked about, if any; never a submit's, whose answer alone can name the new job
    :param files: the file parts of a submit, each as the path or URL it was given as
    :param json: the JSON body, of a call that has one
    :param is_submit: whether sending this call twice may be paid twice
    """

    purpose: str
    method: str
    target: str
    fields: dict[str, str] = field(default_factory=dict, repr=False)
    jobid: str | None = None
    files: dict[str, str] = field(default_factory=dict, repr=False)
    json: dict[str, str | int] | None = field(default=None, repr=False)
    is_submit: bool = False

    @property
    def shown_target(self) -> str:
        """The target as a message shows it: with the colons of a jobid, so that it can be copied out."""
        return self.target.replace("%3A", ":")


@dataclass(frozen=True)
class Command(Generic[P]):
    """
    One of the API's paid commands.

    :param name: its name in the API, the last part of its path
    :param inputs: the dataclass of its fields
    """

    name: str
    inputs: Callable[P, object]

    @property
    def path(self) -> str:
        """Where it is submitted."""
        return f"/v1/pika/{self.name}"

    @property
    def verb(self) -> str:
        """What its jobs call it."""
        return f"pika-{self.name}"

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """Its fields in the API's order, the common ones last."""
        return fields_of(self.inputs)

    @cached_property
    def arguments(self) -> tuple[str, ...]:
        """The names of its fields that an operator takes: all but the Discord token, which is the connection's."""
        return tuple(spec.name for spec in self.fields if spec.name != "discord")

    @property
    def chooses_channel(self) -> bool:
        """Whether it chooses a Discord account; a button has its job's."""
        return "channel" in self.arguments


# Without what nobody compares or prints: each method that is generated here costs every DAG parse.
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Common:
    """What every command takes."""

    max_jobs: Annotated[int | str | None, WholeNumber(MAX_JOBS_LIMIT)] = None
    reply_url: Annotated[str | None, Text(REPLY_LIMIT)] = None
    reply_ref: Annotated[str | None, Text(REPLY_LIMIT)] = None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class OnChannel(Common):
    """What every command takes that chooses its Discord account."""

    discord: Annotated[str | None, Text(REPLY_LIMIT)] = None
    channel: Annotated[str | None, Text(REPLY_LIMIT)] = None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class EncryptText(OnChannel):
    """A video that hides a text."""

    message: Annotated[str, Text(MESSAGE_LIMIT)]
    prompt: Annotated[str, Text(PROMPT_LIMIT)]
    font: Annotated[str | None, Choice(FONTS)] = None
    image: Annotated[str | None, File()] = None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Create(OnChannel):
    """A video of a prompt; the image is its first frame."""

    prompt: Annotated[str, Text(PROMPT_LIMIT)]
    image: Annotated[str | None, File()] = None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Animate(OnChannel):
    """An image that moves."""

    image: Annotated[str, File()]
    prompt: Annotated[str | None, Text(PROMPT_LIMIT)] = None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class EncryptImage(OnChannel):
    """A video that hides an image, which is its message."""

    message: Annotated[str, File()]
    prompt: Annotated[str, Text(PROMPT_LIMIT)]
    image: Annotated[str | None, File()] = None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Button(Common):
    """A button under a completed job; it runs on that job's channel."""

    jobid: Annotated[str, JobId()]
    button: Annotated[str, Choice(BUTTONS)] = "retry"
    discord: Annotated[str | None, Text(REPLY_LIMIT)] = None


ENCRYPT_TEXT = Command("encrypt_text", EncryptText)
CREATE = Command("create", Create)
ANIMATE = Command("animate", Animate)
ENCRYPT_IMAGE = Command("encrypt_image", EncryptImage)
BUTTON = Command("button", Button)

COMMANDS: dict[str, Command[...]] = {
    command.name: command for command in (ENCRYPT_TEXT, CREATE, ANIMATE, ENCRYPT_IMAGE, BUTTON)
}


def prepare(command: Command[P], /, *args: P.args, **fields: P.kwargs) -> Call:
    """
    Check a command's fields and build its call.

    :param command: what to submit
    :param fields: its fields by their Python names
    :raises PikaRequestError: naming the field, what it was and what it may be
    """
    given = command.inputs(*args, **fields)
    # Empty fields are omitted: the service would judge an empty part as a value.
    sent = {spec: text for spec in command.fields if (text := spec.checked(getattr(given, spec.name)))}
    texts = {spec.api_name: text for spec, text in sent.items() if not spec.is_file}
    files = {spec.api_name: text for spec, text in sent.items() if spec.is_file}
    if command.chooses_channel and "discord" in texts and "channel" not in texts:
        raise PikaRequestError(
            "A Discord token was given without a channel. Give the channel too (operator argument or connection"
            " extra 'channel'), or neither. Nothing was sent."
        )
    return Call(f"submit {command.name}", "POST", command.path, texts, files=files, is_submit=True)


def get_job(jobid: str | None) -> Call:
    """Build the call that reads one job."""
    jobid = checked_jobid(jobid)
    return Call("read the job", "GET", f"{JOBS_PATH}/?jobid={quote(jobid, safe='')}", jobid=jobid)


def cancel_job(jobid: str | None) -> Call:
    """Build the call that cancels one job (a GET with a side effect)."""
    jobid = checked_jobid(jobid)
    return Call("cancel the job", "GET", f"{CANCEL_PATH}/?jobid={quote(jobid, safe='')}", jobid=jobid)


def list_jobs() -> Call:
    """Build the call that lists the jobs now executing under the API token."""
    return Call("list the running jobs", "GET", JOBS_PATH)


def list_accounts() -> Call:
    """Build the call that lists the configured Discord accounts."""
    return Call("list the accounts", "GET", ACCOUNT_PATH)


def get_account(channel: str) -> Call:
    """Build the call that reads one configured account."""
    return Call(f"read account {channel}", "GET", _account_path(channel))


def set_account(channel: str, *, discord: str, max_jobs: int | str) -> Call:
    """
    Build the call that configures an account, or changes it; it costs nothing, and its answer has no body.

    :param discord: the account's Discord token, which no message about the call quotes
    :param max_jobs: how many jobs the channel may run at once, 1 to 10
    :raises PikaRequestError: naming the argument, what it was and what it may be
    """
    target = _account_path(channel)
    token = Text(REPLY_LIMIT).checked("discord", discord, required=True)
    limit = WholeNumber(MAX_JOBS_LIMIT).checked("max_jobs", max_jobs, required=True)
    body: dict[str, str | int] = {"discord": token, "channel": channel, "maxJobs": int(limit)}
    return Call(f"configure account {channel}", "POST", target, json=body)


def delete_account(channel: str) -> Call:
    """Build the call that forgets a configured account; its answer has no body."""
    return Call(f"delete account {channel}", "DELETE", _account_path(channel))


def check_token() -> Call:
    """Build the call that checks the API token and costs nothing."""
    return Call("check the API token", "GET", CHECK_PATH)


def _account_path(channel: object) -> str:
    text = Text(REPLY_LIMIT).checked("channel", channel, required=True)
    # An HTTP client resolves a path of dots, and would delete or set something else.
    if text in (".", "..", "None"):
        raise PikaRequestError(f"channel is {text!r}, but must be the id of a Discord channel. Nothing was sent.")
    return f"{ACCOUNT_PATH}/{quote(text, safe='')}"
