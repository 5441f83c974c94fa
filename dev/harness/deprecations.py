"""
Finds deprecations our code is to blame for, whatever line the warning says it comes from.

A filter on the warning's module is not enough: Airflow chooses ``stacklevel`` so that warnings of its import
shims point to Airflow itself or to the import machinery. So the stack is asked instead: who called Airflow?
"""

from __future__ import annotations

import sys
import warnings
from types import FrameType
from typing import Any

OURS = "airflow_provider_pika"
# What may stand between a deprecated thing and the code that used it.
_BETWEEN = ("airflow", "deprecated", "functools", "importlib", "typing_extensions", "warnings")
# Airflow's DeprecatedImportWarning is a FutureWarning.
_KINDS = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)
_found: list[str] = []
_warn = warnings.warn


def watch() -> None:
    """Look at every warning from now on."""
    warnings.warn = _watched_warn  # type: ignore[assignment]


def take() -> list[str]:
    """Return what was found since the last call, each with the line to blame."""
    found, _found[:] = list(_found), []
    return found


def _watched_warn(message: Any, category: Any = None, stacklevel: int = 1, source: Any = None, **kwargs: Any) -> None:
    kind = type(message) if isinstance(message, Warning) else category
    if kind and issubclass(kind, _KINDS):
        _blame(f"{kind.__name__}: {message}", sys._getframe(1))  # noqa: SLF001 - what inspect.stack() uses, without its cost
    _warn(message, category, stacklevel + 1, source, **kwargs)  # + 1: this frame


def _blame(text: str, frame: FrameType | None) -> None:
    if "Connection.from_json" in text:
        return  # Airflow 3.1 reads a JSON connection out of its environment so, whoever asks for it
    source = frame
    while frame and _module(frame) in _BETWEEN:
        if frame is not source and _module(frame) == "airflow" and frame.f_code.co_name == "<module>":
            return  # one of Airflow's modules used it while we imported that module
        frame = frame.f_back
    if frame and _module(frame) == OURS:
        _found.append(f"{frame.f_code.co_filename}:{frame.f_lineno}: {text}")


def _module(frame: FrameType) -> str:
    top = str(frame.f_globals.get("__name__", "")).partition(".")[0]
    return "importlib" if top == "_frozen_importlib" or "<frozen importlib" in frame.f_code.co_filename else top
