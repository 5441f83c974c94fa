"""What can go wrong with the Pika API, told apart by what the caller should do next.

The exceptions are plain: no Airflow in them, so that a notebook or a test can use the hook and
its errors alike. Which of them a task may retry is decided in :mod:`airflow_provider_pika.api.errors`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class PikaError(Exception):
    """
    The base of everything this provider raises about the Pika API.

    :param message: the cause, then what to do; the call and its URL come last
    :param status: HTTP status of the answer, None when no answer came
    :param error: the API's ``error`` text
    :param details: the API's ``errorDetails`` text
    :param jobid: the job concerned, as far as one is known
    :param retry_after: seconds the answer asks to wait, None if it does not say readably
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        error: str | None = None,
        details: str | None = None,
        jobid: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.status = status
        self.error = error
        self.details = details
        self.jobid = jobid

    def to_event(self) -> dict[str, Any]:
        """Return the error as JSON-ready data, the form in which a trigger reports it."""
        return {"kind": type(self).__name__, "message": str(self), **vars(self)}

    @staticmethod
    def from_event(event: dict[str, Any]) -> PikaError:
        """
        Rebuild an error from :meth:`to_event`'s data.

        Keys and kinds this version does not know are left aside: a triggerer of another version
        may have written them.
        """
        kinds: dict[str, type[PikaError]] = {kind.__name__: kind for kind in PikaError.__subclasses__()}
        error = kinds.get(event.get("kind", ""), PikaError)(event.get("message", "unknown error"))
        for name in vars(error):
            setattr(error, name, event.get(name, getattr(error, name)))
        return error


class PikaRequestError(PikaError):
    """The request is wrong (400), or input was refused before it was sent. A retry cannot help."""


class PikaAuthError(PikaError):
    """The API token was refused (401). A retry cannot help."""


class PikaPaymentError(PikaError):
    """The account has no subscription, or an expired one (402). A retry cannot help."""


class PikaNotFoundError(PikaError):
    """The API knows no such job or route (404)."""


class PikaModeratedError(PikaError):
    """The input was refused by moderation or by the bot (422). The same input will be refused again."""


class PikaQueueFullError(PikaError):
    """
    The channel already runs as many jobs as it may (429). No job was made.

    :param executing_jobs: the jobids in the way
    """

    def __init__(self, message: str, *, executing_jobs: Sequence[str] = (), **about: Any) -> None:
        super().__init__(message, **about)
        self.executing_jobs = list(executing_jobs)


class PikaRateLimitedError(PikaError):
    """The service, or Discord behind it, asks for a pause (any other 429). No job was made."""


class PikaUnknownOutcomeError(PikaError):
    """
    A submit whose answer was lost, cut short or a 5xx: a job may exist. Never repeat it blindly.

    :param foreign: whether somebody answered who is not the API: a proxy, or another server than the one meant
    """

    def __init__(self, message: str, *, foreign: bool = False, **about: Any) -> None:
        super().__init__(message, **about)
        self.foreign = foreign


class PikaUnavailableError(PikaError):
    """A read that failed in passing, or a submit that certainly never left. Trying later is safe."""


class PikaJobFailedError(PikaError):
    """The job ended ``failed``, ``moderated`` or ``cancelled``."""
