"""
The Airflow of the unit and integration tests: none of the outer one, a database of its own, no deprecations of ours.

Everything at the top runs before the first import of Airflow, which reads its configuration then and only then.
"""

from __future__ import annotations

import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

for _key in [key for key in os.environ if key.startswith(("AIRFLOW", "_AIRFLOW"))]:
    del os.environ[_key]
_HOME = tempfile.TemporaryDirectory(prefix="pika-tests-")
os.environ["AIRFLOW_HOME"] = _HOME.name
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__CORE__UNIT_TEST_MODE"] = "False"
# A paused DAG is not queued for an asset; Airflow 3.1 reads this once, when its models are imported.
os.environ["AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION"] = "False"
# dag.test() reads every DAG of the folder each time it is called, so the folder is empty.
os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = str(Path(_HOME.name, "dags"))
os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = f"sqlite:///{_HOME.name}/airflow.db?timeout=60"
# Without it dag.test() fails on Airflow 3.2: the API it talks to inside this process does not start.
os.environ["AIRFLOW__API_AUTH__JWT_SECRET"] = "only for tests, and long enough for a signature of this kind"
# Written before Airflow finds none and writes its commented default.
Path(_HOME.name, "airflow.cfg").touch()
Path(_HOME.name, "dags").mkdir()

from dev.harness import deprecations  # noqa: E402 - only now may anything import Airflow

deprecations.watch()


@pytest.fixture(scope="session", autouse=True)
def _airflow_database() -> None:
    from dev.harness.airflow_db import migrated_database

    migrated_database(Path(_HOME.name, "airflow.db"))


@pytest.fixture(autouse=True)
def _no_deprecations_of_ours() -> Iterator[None]:
    """Fail the test during which, or before which, our code leaned on something deprecated."""
    yield
    found = deprecations.take()
    assert not found, "deprecated things used by airflow_provider_pika:\n" + "\n".join(found)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Let a deprecation that no test had to answer for fail the run."""
    for text in deprecations.take():
        warnings.warn(f"deprecated, used by airflow_provider_pika: {text}", stacklevel=1)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    _HOME.cleanup()


@pytest.fixture
def dag_test_api(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Keep the API up that dag.test() asks inside this process; every test that calls dag.test() needs this.

    Airflow 3.2 drops that API's object while it is still in use, and asks before it has started up. Either way the
    first task fails for want of ``svcs_registry``. 3.3 minds both.
    """
    from airflow.sdk.execution_time import supervisor

    make = supervisor.in_process_api_server
    kept = []

    def patient() -> Any:
        api = make()
        kept.append(api)
        assert api.transport is not None  # reading it is what begins the start-up
        for _ in range(1000):
            if hasattr(api.app.state, "svcs_registry"):
                return api
            time.sleep(0.01)
        raise AssertionError("the API inside this process did not start up")

    monkeypatch.setattr(supervisor, "in_process_api_server", patient)


@pytest.fixture
def run_dag(dag_test_api: None) -> Callable[..., Any]:
    """Return a function that runs a DAG made inside a test by ``dag.test()`` and returns the DagRun."""

    def run(dag: Any, **kwargs: Any) -> Any:
        try:  # where it lives from Airflow 3.2 on
            from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
        except ImportError:
            from airflow.models.dagbag import DagBag, sync_bag_to_db
        from airflow.dag_processing.bundles.manager import DagBundlesManager

        # dag.test() runs what the DAG folder gave to the database; a DAG of a test must get there by hand.
        DagBundlesManager().sync_bundles_to_db()
        bag = DagBag(dag_folder=os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
        bag.bag_dag(dag)
        sync_bag_to_db(bag, "dags-folder", None)
        return dag.test(**kwargs)

    return run
