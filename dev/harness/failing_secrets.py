"""A secrets backend that fails while a file says so, as a vault does that is away for half a minute.

Airflow asks a custom backend before the environment and the database, and takes a failure for "I do not have it". So
a connection that must become unreadable has to be kept here and nowhere else.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from airflow.secrets import BaseSecretsBackend

ROOT = Path(__file__).parents[2]


class FailingSecrets(BaseSecretsBackend):
    """
    The connections of a JSON file, except while another file exists.

    :param connections: the file: connection ids to connections, as dicts
    :param failing: while this file exists, every question raises
    """

    def __init__(self, connections: str, failing: str) -> None:
        super().__init__()
        self._connections = Path(connections)
        self._failing = Path(failing)

    def get_conn_value(self, conn_id: str, team_name: str | None = None) -> str | None:  # noqa: ARG002 - Airflow's
        """Return a connection as JSON, None for one that is not kept here."""
        self._fail()
        found = json.loads(self._connections.read_text()).get(conn_id)
        return json.dumps(found) if found else None

    def get_variable(self, key: str, team_name: str | None = None) -> str | None:  # noqa: ARG002 - Airflow's
        """Know no variable, and fail all the same."""
        self._fail()

    def get_config(self, key: str) -> str | None:  # noqa: ARG002 - Airflow's
        """Know no option."""
        return None

    def _fail(self) -> None:
        if self._failing.exists():
            raise ConnectionError("the secrets backend is away")


class Secrets:
    """
    The side of a test: connections in a folder, and a switch.

    :param folder: where both files live; made if missing
    :param connections: Airflow connections by id, as dicts; give :class:`LocalAirflow` none of the same names
    """

    def __init__(self, folder: Path, connections: Mapping[str, Mapping[str, Any]]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._connections = folder / "connections.json"
        self._failing = folder / "failing"
        self.keep(connections)

    def keep(self, connections: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep these connections from now on."""
        self._connections.write_text(json.dumps(connections))

    @property
    def config(self) -> dict[str, str]:
        """What ``LocalAirflow(config=…)`` needs; ``env`` goes with it."""
        files = {"connections": str(self._connections), "failing": str(self._failing)}
        return {
            "secrets.backend": f"{FailingSecrets.__module__}.{FailingSecrets.__name__}",
            "secrets.backend_kwargs": json.dumps(files),
        }

    @property
    def env(self) -> dict[str, str]:
        """What ``LocalAirflow(env=…)`` needs, so that its processes find this module."""
        return {"PYTHONPATH": str(ROOT)}

    def fail(self) -> None:
        """Fail from now on."""
        self._failing.touch()

    def recover(self) -> None:
        """Work again."""
        self._failing.unlink(missing_ok=True)

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Fail while the block lasts."""
        self.fail()
        try:
            yield
        finally:
            self.recover()
