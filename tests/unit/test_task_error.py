"""What a task raises for an error, and what Airflow's log makes of it."""

from __future__ import annotations

import sys

import pytest
from structlog.tracebacks import ExceptionDictTransformer

from airflow_provider_pika.compat import AirflowFailException
from airflow_provider_pika.ending import task_error
from airflow_provider_pika.exceptions import PikaModeratedError, PikaUnavailableError


def test_a_final_error_is_one_traceback_in_the_log_and_keeps_its_cause() -> None:
    """The page showed the text and eight frames, and then the same again."""
    refused = PikaModeratedError("Moderated (HTTP 422): no.", jobid="job:1")
    try:
        try:
            raise refused
        except PikaModeratedError as error:
            raise task_error(error) from error
    except AirflowFailException as error:
        raised = error
        (shown,) = ExceptionDictTransformer()(sys.exc_info())

    assert raised.__cause__ is refused
    assert (shown["exc_type"], shown["exc_value"]) == ("AirflowFailException", "Moderated (HTTP 422): no.")
    assert shown["frames"]


def test_an_error_that_may_pass_is_raised_as_it_is() -> None:
    error = PikaUnavailableError("No answer.")
    assert task_error(error) is error
    with pytest.raises(PikaUnavailableError):
        raise task_error(error)
