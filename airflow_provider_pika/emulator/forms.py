"""Reading a submit's form, as strictly as the contract allows: what a client gets wrong is told to it here."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException

from airflow_provider_pika.api.commands import (
    FONTS,
    MAX_JOBS_LIMIT,
    MESSAGE_LIMIT,
    PROMPT_LIMIT,
    REPLY_LIMIT,
)
from airflow_provider_pika.api.fields import utf16_length
from airflow_provider_pika.emulator.state import Refusal, Submit

if TYPE_CHECKING:
    from starlette.requests import Request

_TEXT_FIELDS = (
    "message",
    "prompt",
    "font",
    "discord",
    "channel",
    "maxJobs",
    "replyUrl",
    "replyRef",
)
_LIMITS = {
    "message": MESSAGE_LIMIT,
    "prompt": PROMPT_LIMIT,
    "replyUrl": REPLY_LIMIT,
    "replyRef": REPLY_LIMIT,
}
_BOT_PARAMETERS = frozenset({"camera", "fps", "motion", "gs", "neg", "ar", "seed", "w", "size"})


async def read_submit(request: Request) -> Submit:
    """
    Read the multipart body of an ``encrypt_text`` submit.

    :raises Refusal: 400, naming the field and what is wrong with it
    """
    content_type = request.headers.get("content-type", "")
    if not content_type.startswith("multipart/form-data"):
        raise Refusal(
            400,
            f"The body must be multipart/form-data, not {content_type or 'without a Content-Type'}",
        )
    try:
        form = await request.form(max_files=20, max_fields=20)
    except (HTTPException, MultiPartException, ValueError, KeyError) as wrong:
        raise Refusal(400, f"The multipart body is unreadable: {getattr(wrong, 'detail', wrong)}") from wrong
    try:
        return _checked(form)
    finally:
        await form.close()


def unknown_parameter(prompt: str) -> str | None:
    """Return the first ``-parameter`` the bot does not know; it refuses the whole prompt for it."""
    names = re.findall(r"(?:^|\s)-([A-Za-z][A-Za-z_]*)", prompt)
    return next((f"-{name}" for name in names if name not in _BOT_PARAMETERS), None)


def _checked(form: FormData) -> Submit:
    counts = Counter(name for name, _ in form.multi_items())
    for name, count in counts.items():
        if name not in (*_TEXT_FIELDS, "image"):
            raise Refusal(400, f"Unknown field {name}")
        if count > 1:
            raise Refusal(400, f"Field {name} was given {count} times")
    texts = {name: _text(name, form[name]) for name in counts if name != "image"}
    for name in ("message", "prompt"):
        if name not in texts:
            raise Refusal(400, f"Required field {name} is missing")
    if "font" in texts and texts["font"] not in FONTS:
        raise Refusal(400, f"Field font must be one of {', '.join(FONTS)}")
    if "discord" in texts and "channel" not in texts:
        raise Refusal(400, "Field discord was given without field channel")
    return Submit(
        message=texts["message"],
        prompt=texts["prompt"],
        font=texts.get("font"),
        image=_image(form["image"]) if "image" in counts else None,
        discord=texts.get("discord"),
        channel=texts.get("channel"),
        max_jobs=_max_jobs(texts["maxJobs"]) if "maxJobs" in texts else None,
        reply_url=texts.get("replyUrl"),
        reply_ref=texts.get("replyRef"),
    )


def _text(name: str, value: UploadFile | str) -> str:
    if isinstance(value, UploadFile):
        raise Refusal(400, f"Field {name} must be a plain text part without a filename")
    if not value:
        raise Refusal(400, f"Field {name} is empty: omit it, or give it a value")
    limit, length = _LIMITS.get(name), utf16_length(value)
    if limit is not None and length > limit:
        raise Refusal(400, f"Field {name} is {length} characters long, the limit is {limit}")
    return value


def _max_jobs(value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,2}", value) or not 1 <= int(value) <= MAX_JOBS_LIMIT:
        raise Refusal(400, f"Field maxJobs must be a whole number from 1 to {MAX_JOBS_LIMIT}")
    return int(value)


def _image(value: UploadFile | str) -> dict[str, object]:
    if not isinstance(value, UploadFile) or not value.filename:
        raise Refusal(400, "Field image must be a file part with a filename")
    if not value.size:
        raise Refusal(400, "Field image is an empty file")
    if not (value.content_type or "").startswith("image/"):
        raise Refusal(
            400,
            f"Field image must have a Content-Type of image/*, not {value.content_type or 'none'}",
        )
    return {"size": value.size, "type": value.content_type}
