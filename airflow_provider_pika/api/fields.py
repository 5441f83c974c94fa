"""What a field of a command may hold, and how a wrong value is refused before anything is sent."""

from __future__ import annotations

import os
import reprlib
from dataclasses import dataclass
from inspect import get_annotations
from types import NoneType
from typing import Protocol, get_args, get_type_hints

from airflow_provider_pika.exceptions import PikaRequestError


class Kind(Protocol):
    """A sort of value."""

    def checked(self, name: str, value: object, *, required: bool) -> str:
        """
        Return what is sent for a value; an empty text stands for nothing.

        :param name: the field's name, for the refusal
        :raises PikaRequestError: naming the field, what it was and what it may be
        """


@dataclass(frozen=True, eq=False, repr=False)
class Text:
    """
    A text.

    :param limit: how many UTF-16 units it may have
    """

    limit: int

    def checked(self, name: str, value: object, *, required: bool) -> str:
        """Refuse what is no text, is too long, or is empty though required; the text itself is never quoted."""
        text = _text(name, value)
        if required and not text.strip():
            how = "missing" if value is None else "empty"
            raise PikaRequestError(f"{name} is {how}; it needs 1 to {self.limit} characters. Nothing was sent.")
        length = utf16_length(text)
        if length > self.limit:
            raise PikaRequestError(
                f"{name} is {length} characters long, the limit is {self.limit} (counted in UTF-16 units, an emoji is"
                " 2). Nothing was sent."
            )
        return text


@dataclass(frozen=True, eq=False, repr=False)
class Choice:
    """
    One of a few texts, taken in upper or lower case and sent as the API spells it.

    :param options: the API's spellings
    """

    options: tuple[str, ...]

    def checked(self, name: str, value: object, *, required: bool) -> str:
        """Refuse what is none of the options, and tell them."""
        text = _text(name, value)
        if not text and not required:
            return ""
        found = {option.casefold(): option for option in self.options}.get(text.casefold())
        if found is None:
            raise PikaRequestError(
                f"{name} is {reprlib.repr(text)}, but must be one of {', '.join(self.options)}. Nothing was sent."
            )
        return found


@dataclass(frozen=True, eq=False, repr=False)
class WholeNumber:
    """
    A whole number from 1 up.

    :param most: the largest one
    """

    most: int

    def checked(self, name: str, value: object, *, required: bool) -> str:
        """Refuse what is no such number; a text that holds one is as good: a template renders to text."""
        if value in (None, "") and not required:
            return ""
        try:
            number = int(value) if isinstance(value, str) else value
        except ValueError:
            number = None
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= self.most:
            raise PikaRequestError(
                f"{name} is {reprlib.repr(value)}, but must be a whole number from 1 to {self.most}. Nothing was sent."
            )
        return str(number)


@dataclass(frozen=True, eq=False, repr=False)
class JobId:
    """The id of another job."""

    def checked(self, name: str, value: object, *, required: bool) -> str:  # noqa: ARG002 - as every kind
        """Refuse what cannot be a jobid."""
        return checked_jobid(value)


@dataclass(frozen=True, eq=False, repr=False)
class File:
    """A file, told as a local path or a URL; opening it is the hook's business."""

    def checked(self, name: str, value: object, *, required: bool) -> str:
        """Refuse what is neither path nor URL, or is missing though required."""
        given = os.fspath(value) if isinstance(value, os.PathLike) else value
        text = _text(name, given, "a path or a URL")
        if required and not text.strip():
            raise PikaRequestError(
                f"{name} is missing: give a local path, an http(s) URL or an object-storage URL. Nothing was sent."
            )
        return text


@dataclass(frozen=True, eq=False, repr=False)
class Field:
    """
    One field of a command.

    :param name: its name in Python
    :param api_name: its name on the wire
    :param required: whether the API refuses a submit without it
    :param kind: what it may hold
    """

    name: str
    api_name: str
    required: bool
    kind: Kind

    @property
    def is_file(self) -> bool:
        """Whether it is sent as a file part."""
        return isinstance(self.kind, File)

    def checked(self, value: object) -> str:
        """
        Return what is sent for a value; an empty text stands for nothing.

        :raises PikaRequestError: naming the field, what it was and what it may be
        """
        return self.kind.checked(self.name, value, required=self.required)


def fields_of(inputs: object) -> tuple[Field, ...]:
    """
    Read the fields out of a dataclass, a command's own ones before those it shares with others.

    A field is annotated with its type and its kind; it is required if the type does not admit None.

    :param inputs: a dataclass whose fields are ``name: Annotated[type, kind]``
    """
    hints = get_type_hints(inputs, include_extras=True)
    names = [name for part in getattr(inputs, "__mro__", ()) for name in get_annotations(part)]
    fields = []
    for name in names:
        type_, kind = get_args(hints[name])
        fields.append(Field(name, _camel(name), NoneType not in get_args(type_), kind))
    return tuple(fields)


def utf16_length(text: str) -> int:
    """Return the length the service sees: it counts UTF-16 units, so an emoji is 2."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


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
    return _text("jobid", jobid.strip())


def _text(name: str, value: object, what: str = "a text") -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise PikaRequestError(f"{name} must be {what}, got {type(value).__name__}. Nothing was sent.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise PikaRequestError(f"{name} holds half an emoji (a lone surrogate). Nothing was sent.") from None
    return value


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
