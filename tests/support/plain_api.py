"""A client of the contract that knows nothing of the provider's own hook."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import requests

if TYPE_CHECKING:
    from airflow_provider_pika.emulator.client import EmulatorClient

GOOD = {"message": "HELLO", "prompt": "waves"}


class Api:
    """A client of the contract that knows nothing of the provider's own hook."""

    def __init__(self, emulator: EmulatorClient) -> None:
        self.url = emulator.url
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers["Authorization"] = f"Bearer {emulator.token}"

    def get(self, target: str, **more: Any) -> requests.Response:
        return self.session.get(self.url + target, timeout=10, allow_redirects=False, **more)

    def submit(
        self, fields: dict[str, str] | None = None, command: str = "encrypt_text", **files: Any
    ) -> requests.Response:
        parts: dict[str, Any] = {name: (None, text) for name, text in (GOOD if fields is None else fields).items()}
        return self.session.post(f"{self.url}/v1/pika/{command}", files=parts | files, timeout=10)

    def made(self, **fields: str) -> str:
        return str(self.submit(GOOD | fields).json()["jobid"])

    def job(self, jobid: str) -> requests.Response:
        return self.get(f"/v1/pika/jobs/?jobid={quote(jobid, safe='')}")

    def cancel(self, jobid: str) -> requests.Response:
        return self.get(f"/v1/pika/jobs/cancel/?jobid={quote(jobid, safe='')}")

    def film_url(self) -> str:
        return str(self.job(self.made()).json()["attachments"][0]["url"])


def assert_error(answer: requests.Response, status: int, said: str) -> None:
    """What is said stands in ``error``, or in ``errorDetails`` where the API's page has other words for ``error``."""
    assert answer.status_code == status
    assert answer.json()["code"] == status
    body = answer.json()
    assert body["error"]
    assert said in f"{body['error']}\n{body.get('errorDetails', '')}"
