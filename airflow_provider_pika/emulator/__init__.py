"""A local server that follows the Pika API v1 contract: for demos and for tests of DAGs, without an account.

It shares the vocabulary of :mod:`airflow_provider_pika.api` and nothing else with the provider, and
needs no Airflow. Start it with ``python -m airflow_provider_pika.emulator``, or take the pytest
fixture ``pika_emulator``.
"""

from __future__ import annotations

from importlib.util import find_spec

_EXTRA_MODULES = ("starlette", "uvicorn", "python_multipart", "av", "PIL")


def missing_extra() -> str | None:
    """Say what to install if the emulator's packages are not all there; None if they are."""
    missing = [name for name in _EXTRA_MODULES if find_spec(name) is None]
    if not missing:
        return None
    return (
        f"The Pika emulator needs packages that are not installed ({', '.join(missing)})."
        " Install them with: pip install 'airflow-provider-pika[emulator]'"
    )
