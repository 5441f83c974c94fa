"""Reading a submit's form, as strictly as the contract allows: what a client gets wrong is told to it here."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException

from airflow_provider_pika.api.fields import Choice, Field, Text, WholeNumber, utf16_length
from airflow_provider_pika.emulator.jobs import Submit, Upload
from airflow_provider_pika.emulator.scenes import small_copy
from airflow_provider_pika.emulator.state import Refusal

if TYPE_CHECKING:
    from starlette.requests import Request

    from airflow_provider_pika.api.commands import Command

_BOT_PARAMETERS = frozenset({"camera", "fps", "motion", "gs", "neg", "ar", "seed", "w", "size"})


async def read_submit(request: Request, command: Command[...]) -> Submit:
    """
    Read the multipart body of a command's submit.

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
        return await _checked(form, command)
    finally:
        await form.close()


def unknown_parameter(prompt: str) -> str | None:
    """Return the first ``-parameter`` the bot does not know; it refuses the whole prompt for it."""
    names = re.findall(r"(?:^|\s)-([A-Za-z][A-Za-z_]*)", prompt)
    return next((f"-{name}" for name in names if name not in _BOT_PARAMETERS), None)


async def _checked(form: FormData, command: Command[...]) -> Submit:
    specs = {spec.api_name: spec for spec in command.fields}
    counts = Counter(name for name, _ in form.multi_items())
    for name, count in counts.items():
        if name not in specs:
            raise Refusal(400, f"Unknown field {name}")
        if count > 1:
            raise Refusal(400, f"Field {name} was given {count} times")
    for name, spec in specs.items():
        if spec.required and name not in counts:
            raise Refusal(400, f"Required field {name} is missing")
    texts = {name: _text(specs[name], form[name]) for name in counts if not specs[name].is_file}
    if "discord" in texts and "channel" not in texts:
        raise Refusal(400, "Field discord was given without field channel")
    files = {name: await _file(name, form[name]) for name in counts if specs[name].is_file}
    max_jobs = texts.pop("maxJobs", None)
    return Submit(
        command,
        discord=texts.pop("discord", None),
        channel=texts.pop("channel", None),
        max_jobs=None if max_jobs is None else int(max_jobs),
        reply_url=texts.pop("replyUrl", None),
        reply_ref=texts.pop("replyRef", None),
        texts=texts,
        files=files,
    )


def _text(spec: Field, value: UploadFile | str) -> str:
    name, kind = spec.api_name, spec.kind
    if isinstance(value, UploadFile):
        raise Refusal(400, f"Field {name} must be a plain text part without a filename")
    if not value:
        raise Refusal(400, f"Field {name} is empty: omit it, or give it a value")
    if isinstance(kind, Text) and (length := utf16_length(value)) > kind.limit:
        raise Refusal(400, f"Field {name} is {length} characters long, the limit is {kind.limit}")
    if isinstance(kind, Choice) and value not in kind.options:
        raise Refusal(400, f"Field {name} must be one of {', '.join(kind.options)}")
    if isinstance(kind, WholeNumber) and not (re.fullmatch(r"[0-9]{1,2}", value) and 1 <= int(value) <= kind.most):
        raise Refusal(400, f"Field {name} must be a whole number from 1 to {kind.most}")
    return value


async def _file(name: str, value: UploadFile | str) -> Upload:
    if not isinstance(value, UploadFile) or not value.filename:
        raise Refusal(400, f"Field {name} must be a file part with a filename")
    if not value.size:
        raise Refusal(400, f"Field {name} is an empty file")
    content_type = value.content_type or "application/octet-stream"
    copy = await run_in_threadpool(small_copy, value.file)
    # What a browser's Blob and curl send without saying what it is.
    if content_type == "application/octet-stream" and copy:
        content_type = copy.type
    if not content_type.startswith("image/"):
        raise Refusal(
            400,
            f"Field {name} must have a Content-Type of image/*, not {value.content_type or 'none'}, or be an image",
        )
    return Upload(value.size, content_type, copy.jpeg if copy else None)
