"""What can be asked of the Pika API v1, as values: no network and no Airflow in here.

Both transports of the hook send what these functions return, so they cannot drift apart; the
emulator takes its vocabulary from the same constants.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import quote

from airflow_provider_pika.exceptions import PikaRequestError

ENCRYPT_TEXT_PATH = "/v1/pika/encrypt_text"
JOBS_PATH = "/v1/pika/jobs"
CANCEL_PATH = "/v1/pika/jobs/cancel"
ACCOUNT_PATH = "/v1/pika/account"
CHECK_PATH = "/v2/account"

FONTS = ("MODERN", "COMICS", "SANS SERIF", "BAUHAUS", "RETRO")
MESSAGE_LIMIT = 20
PROMPT_LIMIT = 1500
REPLY_LIMIT = 1024
MAX_JOBS_LIMIT = 10


@dataclass(frozen=True)
class Call:
    """
    One request to the API.

    :param purpose: what the call is for, in the words an error message uses
    :param method: ``GET`` or ``POST``
    :param target: path and query below the root URL, percent-encoded
    :param fields: the text parts of a submit's multipart body
    :param jobid: the job asked about, if any
    """

    purpose: str
    method: str
    target: str
    fields: dict[str, str] = field(default_factory=dict, repr=False)
    jobid: str | None = None

    @property
    def is_submit(self) -> bool:
        """Whether sending this call twice may be paid twice."""
        return self.method == "POST"


def utf16_length(text: str) -> int:
    """Return the length the service sees: it counts UTF-16 units, so an emoji is 2."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def encrypt_text(
    *,
    message: str | None,
    prompt: str | None,
    font: str | None = None,
    discord: str | None = None,
    channel: str | None = None,
    max_jobs: int | str | None = None,
    reply_url: str | None = None,
    reply_ref: str | None = None,
) -> Call:
    """
    Check the text fields of an ``encrypt_text`` submit and build its call; the image goes beside it.

    Lengths are in UTF-16 units; the limits are the ones of the API's own documentation.

    :raises PikaRequestError: naming the field, what it was and what it may be
    """
    fields = {
        "message": _text("message", message, MESSAGE_LIMIT, required=True),
        "prompt": _text("prompt", prompt, PROMPT_LIMIT, required=True),
        "font": _text("font", font, REPLY_LIMIT),
        "discord": _text("discord", discord, REPLY_LIMIT),
        "channel": _text("channel", channel, REPLY_LIMIT),
        "maxJobs": _max_jobs(max_jobs),
        "replyUrl": _text("reply_url", reply_url, REPLY_LIMIT),
        "replyRef": _text("reply_ref", reply_ref, REPLY_LIMIT),
    }
    if fields["font"] and fields["font"] not in FONTS:
        raise PikaRequestError(f"font is {fields['font']!r}, but must be one of {', '.join(FONTS)}. Nothing was sent.")
    if fields["discord"] and not fields["channel"]:
        raise PikaRequestError(
            "A Discord token was given without a channel. Give the channel too (operator argument or connection"
            " extra 'channel'), or neither. Nothing was sent."
        )
    # Empty fields are omitted: the service would judge an empty part as a value.
    return Call("submit encrypt_text", "POST", ENCRYPT_TEXT_PATH, {name: text for name, text in fields.items() if text})


def get_job(jobid: str | None) -> Call:
    """Build the call that reads one job."""
    jobid = checked_jobid(jobid)
    return Call(f"read job {jobid}", "GET", f"{JOBS_PATH}/?jobid={quote(jobid, safe='')}", jobid=jobid)


def cancel_job(jobid: str | None) -> Call:
    """Build the call that cancels one job (a GET with a side effect)."""
    jobid = checked_jobid(jobid)
    return Call(f"cancel job {jobid}", "GET", f"{CANCEL_PATH}/?jobid={quote(jobid, safe='')}", jobid=jobid)


def list_jobs() -> Call:
    """Build the call that lists the jobs now executing under the API token."""
    return Call("list the running jobs", "GET", JOBS_PATH)


def list_accounts() -> Call:
    """Build the call that lists the configured Discord accounts."""
    return Call("list the accounts", "GET", ACCOUNT_PATH)


def check_token() -> Call:
    """Build the call that checks the API token and costs nothing."""
    return Call("check the API token", "GET", CHECK_PATH)


def checked_jobid(jobid: object) -> str:
    """
    Return the jobid, or refuse what cannot be one.

    ``"None"`` is what a template renders when the upstream task was skipped or pushed nothing.

    :raises PikaRequestError: for None, ``"None"``, an empty text or something that is no text
    """
    if jobid is None or (isinstance(jobid, str) and jobid.strip() in ("", "None")):
        raise PikaRequestError(
            f"The jobid is missing (got {jobid!r}): was the upstream task that submits the job skipped, or does it"
            " push no XCom? Nothing was asked of the API."
        )
    if not isinstance(jobid, str):
        raise PikaRequestError(
            f"The jobid must be a text, got {type(jobid).__name__}: for several jobs map the task with .expand()."
            " Nothing was asked of the API."
        )
    return jobid.strip()


def _text(name: str, value: object, limit: int, *, required: bool = False) -> str:
    if value is None:
        value = ""
    if not isinstance(value, str):
        raise PikaRequestError(f"{name} must be a text, got {type(value).__name__}. Nothing was sent.")
    if required and not value.strip():
        raise PikaRequestError(f"{name} is empty; it needs 1 to {limit} characters. Nothing was sent.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise PikaRequestError(f"{name} holds half an emoji (a lone surrogate): {value!r}. Nothing was sent.") from None
    length = utf16_length(value)
    if length > limit:
        raise PikaRequestError(
            f"{name} is {length} characters long, the limit is {limit} (counted in UTF-16 units, an emoji is 2)."
            " Nothing was sent."
        )
    return value


def _max_jobs(value: object) -> str:
    if value is None or value == "":
        return ""
    try:
        # A template renders to text and a connection's extra may hold one: "3" is as good as 3.
        number = int(value) if isinstance(value, str) else value
    except ValueError:
        number = None
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= MAX_JOBS_LIMIT:
        raise PikaRequestError(
            f"max_jobs is {value!r}, but must be a whole number from 1 to {MAX_JOBS_LIMIT}. Nothing was sent."
        )
    return str(number)
