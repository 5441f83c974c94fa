"""Reading a submit's form, as strictly as the contract allows: what a client gets wrong is told to it here."""

from __future__ import annotations

import mimetypes
import re
from collections import Counter
from pathlib import PurePath
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException

from airflow_provider_pika.api.fields import Choice, Field, Text, WholeNumber, utf16_length
from airflow_provider_pika.emulator.jobs import Submit, Upload
from airflow_provider_pika.emulator.refusals import Refusal, either, missing
from airflow_provider_pika.emulator.scenes import small_copy

if TYPE_CHECKING:
    from starlette.requests import Request

    from airflow_provider_pika.api.commands import Command

# The order in which the API's page names the fields that can be too long.
_LIMITED = ("message", "prompt", "replyRef", "replyUrl")
_BOT_PARAMETERS = frozenset({"camera", "fps", "motion", "gs", "neg", "ar", "seed", "w", "size"})

_SUFFIX = re.compile(r"\.[a-z0-9]{1,5}")


async def read_submit(request: Request, command: Command[...], *, whole: bool = False) -> Submit:
    """
    Read the multipart body of a command's submit.

    :param whole: whether to keep all of its files
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
        return await _checked(form, command, whole)
    finally:
        await form.close()


def unknown_parameters(prompt: str) -> list[str]:
    """Return each ``-parameter`` the bot does not know; it refuses the whole prompt for one."""
    names = re.findall(r"(?:^|\s)-([A-Za-z][A-Za-z_]*)", prompt)
    return [name for name in names if name not in _BOT_PARAMETERS]


async def _checked(form: FormData, command: Command[...], whole: bool) -> Submit:
    specs = {spec.api_name: spec for spec in command.fields}
    counts = Counter(name for name, _ in form.multi_items())
    for name, count in counts.items():
        if name not in specs:
            raise Refusal(400, f"Unknown field {name}")
        if count > 1:
            raise Refusal(400, f"Field {name} was given {count} times")
    for name, spec in specs.items():
        if spec.required and name not in counts:
            raise missing(command, f"Required field {name} is missing")
    texts = {name: _text(command, specs[name], form[name]) for name in counts if not specs[name].is_file}
    if command.chooses_channel and "discord" in texts and "channel" not in texts:
        raise missing(command, "Field discord was given without field channel")
    files = {name: await _file(name, form[name], whole) for name in counts if specs[name].is_file}
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


def _too_long(command: Command[...], details: str) -> Refusal:
    limited = [spec.api_name for spec in command.fields if isinstance(spec.kind, Text) and spec.api_name in _LIMITED]
    names = sorted(limited, key=_LIMITED.index)
    return Refusal(400, f"{either(names)} is too long", errorDetails=details)


def _text(command: Command[...], spec: Field, value: UploadFile | str) -> str:
    name, kind = spec.api_name, spec.kind
    if isinstance(value, UploadFile):
        raise Refusal(400, f"Field {name} must be a plain text part without a filename")
    if not value:
        raise missing(command, f"Field {name} is empty: omit it, or give it a value")
    if isinstance(kind, Text) and (length := utf16_length(value)) > kind.limit:
        raise _too_long(command, f"Field {name} is {length} characters long, the limit is {kind.limit}")
    if isinstance(kind, Choice) and value not in kind.options:
        raise Refusal(400, f"{name} {value} is not one of allowed values {', '.join(kind.options)}")
    if isinstance(kind, WholeNumber) and not (re.fullmatch(r"[0-9]{1,2}", value) and 1 <= int(value) <= kind.most):
        raise Refusal(400, f"Field {name} must be a whole number from 1 to {kind.most}")
    return value


async def _file(name: str, value: UploadFile | str, whole: bool) -> Upload:
    if not isinstance(value, UploadFile) or not value.filename:
        raise _no_file(name, f"Field {name} must be a file part with a filename")
    if not value.size:
        raise _no_file(name, f"Field {name} is an empty file")
    # As a Blob without a type and curl's -F image=@pika.webp come; what it is shows in its bytes.
    content_type = value.content_type or "application/octet-stream"
    copy = await run_in_threadpool(small_copy, value.file)
    if content_type == "application/octet-stream" and copy:
        content_type = copy.type
    if not content_type.startswith("image/"):
        raise _no_file(name, f"Field {name} must have a Content-Type of image/*, not {content_type}, or be an image")
    data = None
    if whole:
        await value.seek(0)
        data = await value.read()
    return Upload(value.size, content_type, copy.jpeg if copy else None, data, _suffix(content_type, value.filename))


def _suffix(content_type: str, filename: str | None) -> str:
    """Return the suffix by which programs tell what a file is; of a name only what no path can be made of."""
    kind = content_type.partition(";")[0].strip().lower()
    # Python knows of WebP from 3.13 on.
    if suffix := ".webp" if kind == "image/webp" else mimetypes.guess_extension(kind):
        return suffix
    own = PurePath(filename or "").suffix.lower()
    return own if _SUFFIX.fullmatch(own) else ""


def _no_file(name: str, details: str) -> Refusal:
    return Refusal(400, f"{name} is not File or Blob", errorDetails=details)
