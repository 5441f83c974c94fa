"""A submit as the emulator keeps it, after every check on its form, and the job that comes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_pika.api.commands import BUTTONS

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_pika.api.commands import Command
    from airflow_provider_pika.emulator.faults import Traits
    from airflow_provider_pika.emulator.settings import Pace

MODERATED = "Sorry, your input may be inconsistent with server rules."
_REASONS = {
    "failed": "The bot failed to make the video",
    "moderated": MODERATED,
    "cancelled": "The job was cancelled",
}


@dataclass(frozen=True)
class Upload:
    """
    A file that came with a submit.

    :param size: its bytes
    :param type: its media type
    :param picture: a small copy to film, None if it could not be read as an image
    :param data: all of it, kept where a renderer wants it
    :param suffix: what a file of it is called by, such as ``.png``; empty if neither its type nor its name tells
    """

    size: int
    type: str
    picture: bytes | None = None
    data: bytes | None = field(default=None, repr=False)
    suffix: str = ""


@dataclass(frozen=True)
class Submit:
    """
    What was asked.

    :param command: the command
    :param texts: its own text fields, by their names on the wire
    :param files: its own files
    """

    command: Command[...]
    texts: dict[str, str] = field(default_factory=dict)
    files: dict[str, Upload] = field(default_factory=dict)
    discord: str | None = None
    channel: str | None = None
    max_jobs: int | None = None
    reply_url: str | None = None
    reply_ref: str | None = None

    @property
    def prompt(self) -> str:
        """Its prompt; an empty text if it has none."""
        return self.texts.get("prompt", "")

    @property
    def message(self) -> str:
        """The text it hides; an empty one if it hides none."""
        return self.texts.get("message", "")

    def told(self) -> dict[str, Any]:
        """Return its own fields as answers about its job show them, in the API's order."""
        files = {name: {"size": file.size, "type": file.type} for name, file in self.files.items()}
        given = self.texts | files
        return {spec.api_name: given[spec.api_name] for spec in self.command.fields if spec.api_name in given}


@dataclass
class Job:
    """
    One job: what was asked, and how far it has come.

    :param shows: what its film is of: what was asked, or of a button's job what its parent was asked
    :param seen: when a read first told that it had ended
    :param progress: how far it has come, as its renderer says
    :param film: what its renderer made
    :param take: tells the films of the same input apart, 0 for the first
    """

    number: int
    jobid: str
    asked: Submit
    shows: Submit
    discord: str
    channel: str
    max_jobs: int
    created: float
    updated: float
    pace: Pace
    traits: Traits
    status: str = "started"
    ended: float | None = None
    seen: float | None = None
    content: str | None = None
    reads: int = 0
    links_given: int = 0
    take: int = 0
    progress: str | None = None
    film: Path | None = None

    @property
    def buttons(self) -> list[str]:
        """What can be pressed under it; nothing before it has completed."""
        return list(BUTTONS) if self.status == "completed" else []

    @property
    def reason(self) -> str | None:
        """Why it ended badly; None if it runs or has completed."""
        if self.ended is None or self.status == "completed":
            return None
        return self.traits.reason or _REASONS.get(self.status, self.status)
