"""What an error says first, and what it tells whoever reads it to do."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_pika.exceptions import (
    PikaAuthError,
    PikaError,
    PikaModeratedError,
    PikaNotFoundError,
    PikaPaymentError,
    PikaQueueFullError,
    PikaRateLimitedError,
    PikaRequestError,
    PikaUnavailableError,
    PikaUnknownOutcomeError,
)

_MAY_EXIST = (
    "A job may have been made and paid for: before submitting again look at the emulator's page or the Discord channel,"
    " or while it runs at 'airflow pika jobs{option}' (on Airflow 3.1 'python -m airflow_provider_pika jobs{option}');"
    " clearing the task means 'go on with a job that still runs, else make a new one and pay for it'."
)
NOT_THE_API = "Is a proxy or firewall in between, or the root URL (host) of {conn} wrong? It may pass: try again later."
WRONG_ROOT = (
    "Put the API's root URL into the host of {conn}, without a path as /v1/pika. If it is right, a proxy or firewall"
    " has answered in its place."
)
UNREACHED = (
    "Nothing was sent. Is the host of {conn} right, and does the emulator run? (The hosted service has been withdrawn.)"
    " The emulator speaks http; where the host has no http:// and the schema is empty, https is spoken."
)
NOT_FOLLOWED = "Redirects are not followed: put the final root URL into the host of {conn}."
_MODERATED = "Change the message, the prompt or the image: the same input will be refused again."
# What to do about a job that ended badly, by its status.
ENDED: dict[str, str] = {
    "moderated": _MODERATED,
    "failed": (
        "Another try may work: clear the task that submitted it; or let one task submit and wait"
        " (wait_for_completion=True) with retry_failed=True and retries. Either makes, and pays for, a new job."
    ),
    "cancelled": "Clear the task that submitted it to make, and pay for, a new job.",
}

ADVICE: dict[type[PikaError], str] = {
    PikaAuthError: "Put a valid API token into the password of {conn}.",
    PikaPaymentError: "Renew the useapi.net subscription of the API token in {conn}: it is missing or has expired.",
    PikaModeratedError: _MODERATED,
    PikaNotFoundError: (
        "The emulator forgets all jobs when it ends; else the job may be older than the 31 days for which it is kept,"
        " or belong to another API token than that of {conn}."
    ),
    PikaQueueFullError: "The channel runs as many jobs as it may and no job was made: submit again later.",
    PikaRateLimitedError: "The service asks for a pause and no job was made by this call: try again later.",
    PikaRequestError: "Change the request, or the settings of {conn}: a retry cannot help.",
    PikaUnavailableError: "This may pass: try again later.",
    PikaUnknownOutcomeError: _MAY_EXIST,
}

# A message's first words: whoever reads a log sees these, whatever is cut off behind them.
HEADLINE: dict[type[PikaError], str] = {
    PikaAuthError: "API token refused",
    PikaPaymentError: "No valid subscription",
    PikaModeratedError: "Moderated",
    PikaNotFoundError: "Not found",
    PikaQueueFullError: "Queue full",
    PikaRateLimitedError: "Rate limited",
    PikaRequestError: "Refused",
    PikaUnavailableError: "Server error",
    PikaUnknownOutcomeError: "Server error after a submit",
}


@dataclass(frozen=True)
class Root:
    """
    Where the API is asked, and where that is written.

    :param base_url: the API's root URL without a trailing slash; empty if the connection cannot be read just now
    :param conn_id: the Airflow connection it comes from, which every message about a token, a host or a setting names
    """

    base_url: str
    conn_id: str

    def words(self, advice: str) -> str:
        """Fill the connection's name into an advice."""
        return advice.format(conn=f"the connection {self.conn_id!r}", option=f" --conn-id {self.conn_id}")


def may_exist(conn_id: str) -> str:
    """Return what to do where nobody knows whether a submit made a job."""
    return Root("", conn_id).words(_MAY_EXIST)
