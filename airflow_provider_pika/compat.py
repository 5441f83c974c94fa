"""What differs between the Airflow versions we support, in one place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.configuration import conf
    from airflow.sdk.exceptions import (
        AirflowFailException,
        AirflowNotFoundException,
        AirflowRescheduleException,
        AirflowSensorTimeout,
        AirflowSkipException,
    )
else:
    try:
        from airflow.sdk.configuration import conf
        from airflow.sdk.exceptions import (
            AirflowFailException,
            AirflowNotFoundException,
            AirflowRescheduleException,
            AirflowSensorTimeout,
            AirflowSkipException,
        )
    except ImportError:  # Airflow 3.1
        from airflow.configuration import conf
        from airflow.exceptions import (
            AirflowFailException,
            AirflowNotFoundException,
            AirflowRescheduleException,
            AirflowSensorTimeout,
            AirflowSkipException,
        )

__all__ = [
    "AirflowFailException",
    "AirflowNotFoundException",
    "AirflowRescheduleException",
    "AirflowSensorTimeout",
    "AirflowSkipException",
    "TaskStateStore",
    "conf",
    "task_state_store",
]


class TaskStateStore(Protocol):
    """The part of Airflow 3.3's store that is used here: JSON values, durable once ``set`` returns."""

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value under a key."""

    def set(self, key: str, value: Any) -> None:
        """Store a value under a key."""

    def delete(self, key: str) -> None:
        """Forget a key."""


def task_state_store(context: Context) -> TaskStateStore | None:
    """Return the store that outlives retries, reschedules and kills; None below Airflow 3.3."""
    store: TaskStateStore | None = context.get("task_state_store")
    return store
