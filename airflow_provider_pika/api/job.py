"""A job as the API tells of it: its state, its attachments, its video."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

RUNNING_STATES = frozenset({"created", "started", "progress"})
FINAL_STATES = frozenset({"completed", "moderated", "failed", "cancelled"})

# The body's own copy of the HTTP status, and the (masked) Discord token: neither is for a DAG's eyes.
_PRIVATE_KEYS = frozenset({"code", "discord"})


@dataclass(frozen=True)
class Job:
    """
    One job. Every field of the API is optional, so nothing here is indexed blindly.

    :param jobid: the job's opaque id
    :param status: its state in the API's word; an empty text if the API gave none
    :param raw: the API's answer as it came
    """

    jobid: str
    status: str
    raw: dict[str, Any]

    @classmethod
    def from_answer(cls, body: dict[str, Any], jobid: str | None = None) -> Job:
        """Read a job's body; ``jobid`` is the one asked for, which an answer may leave out."""
        return cls(str(body.get("jobid") or jobid or ""), str(body.get("status") or ""), body)

    @property
    def shown_status(self) -> str:
        """The state as a message shows it."""
        return self.status or "in no state the API names"

    @property
    def is_final(self) -> bool:
        """Whether the job has ended. A state we do not know is taken for running."""
        return self.status in FINAL_STATES

    @property
    def is_known(self) -> bool:
        """Whether the state is one the API documents."""
        return self.status in FINAL_STATES | RUNNING_STATES

    @property
    def attachments(self) -> list[dict[str, Any]]:
        """The API's attachments as they came; none before the job has completed, when they may be previews."""
        found = self.raw.get("attachments")
        if self.status != "completed" or not isinstance(found, list):
            return []
        return [attachment for attachment in found if isinstance(attachment, dict)]

    @property
    def videos(self) -> list[dict[str, Any]]:
        """The attachments that are videos: by content type, else by an ``.mp4`` name."""
        typed = [a for a in self.attachments if str(a.get("content_type") or "").startswith("video/")]
        return typed or [a for a in self.attachments if _file_name(a).endswith(".mp4")]

    @property
    def video_url(self) -> str | None:
        """The signed URL of the video, which expires within a day; None if there is none."""
        return next((str(a["url"]) for a in self.videos if a.get("url")), None)

    @property
    def duration(self) -> float | None:
        """Seconds from the job's creation to its last change, None if the API does not say readably."""
        import pendulum

        try:
            created, updated = (pendulum.parse(str(self.raw[key])) for key in ("created", "updated"))
        except (KeyError, ValueError):
            return None
        return float((updated - created).total_seconds())  # type: ignore[operator, union-attr]

    @property
    def reason(self) -> str:
        """The API's own words about how the job ended, as far as it gave any."""
        said = [str(self.raw[key]) for key in ("error", "errorDetails") if self.raw.get(key)]
        content = str(self.raw.get("content") or "")
        # The bot's message often holds the very words that the service gives as the error.
        if content and not any(_one_says_the_other(content, text) for text in said):
            said.append(content)
        return ": ".join(said) or "the API gave no reason"

    def public(self) -> dict[str, Any]:
        """Return the API's keys a task pushes, with the jobid always among them."""
        return {key: value for key, value in self.raw.items() if key not in _PRIVATE_KEYS} | {"jobid": self.jobid}


def _one_says_the_other(one: str, other: str) -> bool:
    shorter, longer = sorted((" ".join(text.casefold().split()).rstrip(". ") for text in (one, other)), key=len)
    return shorter in longer


def _file_name(attachment: dict[str, Any]) -> str:
    name = attachment.get("filename") or urlsplit(str(attachment.get("url") or "")).path
    return str(name).lower()
