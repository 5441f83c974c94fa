"""Airflow Variables in memory, as a supervisor answers for them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time.comms import DeleteVariable, ErrorResponse, GetVariable, PutVariable, VariableResult


class Variables:
    """
    What a task asks its supervisor of Variables.

    :param fails_on: called with each request; a true answer fails it, as a lost api-server does
    """

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.fails_on: Callable[[Any], bool] = lambda _: False

    def ask(self, message: Any) -> Any:
        """Answer a request as the supervisor does."""
        if self.fails_on(message):
            raise AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={"status_code": 503}))
        if isinstance(message, PutVariable):
            self.values[message.key] = message.value
        elif isinstance(message, DeleteVariable):
            del self.values[message.key]
        elif isinstance(message, GetVariable):
            if message.key in self.values:
                return VariableResult(key=message.key, value=self.values[message.key])
            return ErrorResponse(error=ErrorType.VARIABLE_NOT_FOUND, detail={"key": message.key})
        return None

    def under(self, key: str) -> list[Any]:
        """Return the values of all tasks under a key of the store."""
        return [json.loads(value) for name, value in self.values.items() if name.startswith(f"{key}__")]
