"""The requests of a poller that are under way: tasks of their own, so that none waits behind another that hangs."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any


class UnderWay:
    """
    What has been begun and has not ended.

    :param broken: called when one of them has raised, which none should
    """

    def __init__(self, broken: Callable[[], None]) -> None:
        self._broken = broken
        self._tasks: dict[tuple[str, ...], asyncio.Task[None]] = {}
        self._failure: BaseException | None = None

    def __len__(self) -> int:
        return len(self._tasks)

    def has(self, work: Callable[..., Coroutine[Any, Any, None]], *arguments: str) -> bool:
        """Whether just that request is under way."""
        return (work.__name__, *arguments) in self._tasks

    def start(self, work: Callable[..., Coroutine[Any, Any, None]], *arguments: str) -> None:
        """Begin a request, unless just that one is under way."""
        key = (work.__name__, *arguments)
        if key not in self._tasks:
            # In a context of its own: Airflow tells triggers' logs apart by context variables, and this is nobody's.
            task = self._tasks[key] = contextvars.Context().run(asyncio.ensure_future, work(*arguments))
            task.add_done_callback(lambda _: self._ended(key))

    def check(self) -> None:
        """Raise what one of them has raised."""
        if self._failure:
            raise self._failure

    def cancel(self) -> None:
        """End them all."""
        for task in list(self._tasks.values()):
            task.cancel()

    def _ended(self, key: tuple[str, ...]) -> None:
        task = self._tasks.pop(key)
        if not task.cancelled() and (failure := task.exception()):
            self._failure = failure
            self._broken()
