"""``airflow pika …``: what runs on the account, for a person who has to look or to end it.

The same commands are behind ``python -m airflow_provider_pika``, for Airflow 3.1, which takes none from a provider.
Imported at every start of ``airflow``, so whatever is heavy is imported within the commands.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow.cli.cli_config import ARG_OUTPUT, ARG_VERBOSE, ActionCommand, Arg, GroupCommand, lazy_load_command

if TYPE_CHECKING:
    from argparse import Namespace

    from airflow_provider_pika.api.job import Job
    from airflow_provider_pika.exceptions import PikaError
    from airflow_provider_pika.hooks.pika import PikaHook

_CONN_ID = Arg(
    ("--conn-id",), help="The Airflow connection of type pika (default: pika_default)", default="pika_default"
)
_JOBID = Arg(("jobid",), help="The job's id")
_HERE = "airflow_provider_pika.cli"


def pika_commands() -> list[GroupCommand]:
    """Return the commands Airflow adds to its own, as the provider info's ``cli`` names them."""
    commands = (
        ActionCommand(
            name="jobs",
            help="List the jobs that run now, over all channels of the API token",
            func=lazy_load_command(f"{_HERE}.jobs"),
            args=(_CONN_ID, ARG_OUTPUT, ARG_VERBOSE),
            epilog=(
                "task is the dag, the run and the task that submitted the job, as this Airflow remembers (3.3 and"
                " later, where its database is at hand); empty for a job of somebody else. reply_ref is what the job"
                " was submitted with: the provider's own is random and names no task, so that nothing leaks."
            ),
        ),
        ActionCommand(
            name="job",
            help="Show one job, running or ended",
            func=lazy_load_command(f"{_HERE}.job"),
            args=(_JOBID, _CONN_ID, ARG_OUTPUT, ARG_VERBOSE),
        ),
        ActionCommand(
            name="cancel",
            help="Cancel a job at once, without confirmation, and print its state",
            func=lazy_load_command(f"{_HERE}.cancel"),
            args=(_JOBID, _CONN_ID, ARG_VERBOSE),
        ),
        ActionCommand(
            name="accounts",
            help="List the configured Discord accounts and how many jobs each may run",
            func=lazy_load_command(f"{_HERE}.accounts"),
            args=(_CONN_ID, ARG_OUTPUT, ARG_VERBOSE),
        ),
    )
    return [GroupCommand(name="pika", help="See and cancel jobs of a Pika API v1 server", subcommands=commands)]


def jobs(args: Namespace) -> None:
    """List the running jobs."""
    from airflow_provider_pika.exceptions import PikaError

    def work(hook: PikaHook) -> None:
        found = {jobid: job for jobid in hook.list_jobs() if (job := _read(hook, jobid))}
        tasks = _tasks_of([job for job in found.values() if not isinstance(job, PikaError)])
        rows = [_row(jobid, job, tasks.get(jobid, "")) for jobid, job in found.items()]
        _show(args, rows, nothing="No job runs.")

    _run(args, work)


def job(args: Namespace) -> None:
    """Show one job."""

    def work(hook: PikaHook) -> None:
        read = hook.get_job(args.jobid)
        task = _tasks_of([read]).get(read.jobid)
        found = ({"task": task} if task else {}) | read.public()
        if args.output in ("table", "plain"):
            _show(args, [{"field": key, "value": value} for key, value in found.items()])
        else:
            _show(args, [found])

    _run(args, work)


def cancel(args: Namespace) -> None:
    """Cancel a job."""

    def work(hook: PikaHook) -> None:
        ended = hook.cancel_job(args.jobid)
        print(f"Asked the API to cancel {ended.jobid}: it is {ended.shown_status}.")

    _run(args, work)


def accounts(args: Namespace) -> None:
    """List the configured accounts."""

    def work(hook: PikaHook) -> None:
        found = hook.list_accounts()
        rows = [
            {"channel": channel, "max_jobs": about.get("maxJobs"), "discord": _masked(about.get("discord"))}
            for channel, about in found.items()
            if isinstance(about, dict)
        ]
        _show(args, rows, nothing="No account is configured.")

    _run(args, work)


def _run(args: Namespace, work: Callable[[PikaHook], None]) -> None:
    """
    Do the work with the connection's hook.

    :raises SystemExit: with an error's message, which Python prints as one line before it exits with 1
    """
    import os

    from airflow.utils.cli import suppress_logs_and_warning

    from airflow_provider_pika.exceptions import PikaError
    from airflow_provider_pika.hooks.pika import PikaHook

    # As Airflow's own commands do: without it, a connection in the database would not be looked up.
    os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "server"

    def command(args: Namespace) -> None:
        try:
            work(PikaHook(args.conn_id))
        except PikaError as error:
            raise SystemExit(str(error)) from None

    suppress_logs_and_warning(command)(args)


def _read(hook: PikaHook, jobid: str) -> Job | PikaError | None:
    """Read a listed job; one that cannot be read must not hide the others."""
    from airflow_provider_pika.exceptions import PikaError, PikaNotFoundError

    try:
        return hook.get_job(jobid)
    except PikaNotFoundError:
        # Listed a moment before it can be read, or after it has ended.
        return None
    except PikaError as error:
        return error


def _row(jobid: str, job: Job | PikaError, task: str) -> dict[str, Any]:
    from airflow_provider_pika.exceptions import PikaError

    told: dict[str, Any] = {} if isinstance(job, PikaError) else job.raw
    return {
        "jobid": jobid,
        # Of an error its cause, which comes first.
        "status": str(job).partition(". ")[0] if isinstance(job, PikaError) else job.status,
        "age": _age(told.get("created")),
        "task": task,
        "command": str(told.get("verb") or "").removeprefix("pika-"),
        "prompt": told.get("prompt") or "",
        "channel": told.get("channel") or "",
        "reply_ref": told.get("replyRef") or "",
    }


def _tasks_of(jobs: list[Job]) -> dict[str, str]:
    """Return which task submitted a job, by its jobid, as far as Airflow's database tells it."""
    from sqlalchemy.exc import SQLAlchemyError

    from airflow_provider_pika.api.recovery import Record
    from airflow_provider_pika.compat import stored_values
    from airflow_provider_pika.store import SUBMIT_KEY

    # Before its answer has come a submit is remembered by its reference, and from then on by its jobid.
    names = {job.jobid: (job.jobid, str(job.raw.get("replyRef") or "")) for job in jobs}
    # As they stand within a JSON text.
    holding = {json.dumps(name)[1:-1] for both in names.values() for name in both if name}
    if not holding:
        return {}
    try:
        values = stored_values(SUBMIT_KEY, holding)
    except SQLAlchemyError as error:
        print(
            f"The column 'task' is left empty: Airflow's database cannot be read ({type(error).__name__}).",
            file=sys.stderr,
        )
        return {}
    found: dict[str, str] = {}
    for value in values:
        try:
            record = Record.from_json(json.loads(value.text))
        except (TypeError, ValueError):
            # A state store backend of the workers' own keeps but a reference here.
            continue
        which = f"[{value.map_index}]" if value.map_index >= 0 else ""
        for jobid, (_, reply_ref) in names.items():
            if record.jobid == jobid or (not record.jobid and reply_ref and record.reply_ref == reply_ref):
                found.setdefault(jobid, f"{value.dag_id} / {value.run_id} / {value.task_id}{which}")
    return found


def _age(created: object) -> str:
    import pendulum

    from airflow_provider_pika.api.polling import duration

    try:
        at = pendulum.parse(str(created))
    except ValueError:
        return ""
    return duration(max(1.0, (pendulum.now("UTC") - at).total_seconds()))  # type: ignore[operator, union-attr]


def _masked(discord: object) -> str:
    """Return a Discord token as the API masks it, whether it did or not."""
    text = str(discord or "").strip("<>")
    return f"{text[:3]}…{text[-3:]}" if len(text) > 8 else "***"


def _show(args: Namespace, rows: list[dict[str, Any]], *, nothing: str = "") -> None:
    from airflow.cli.simple_table import AirflowConsole
    from rich.markup import escape

    if not rows and args.output in ("table", "plain"):
        print(nothing)
        return
    if args.output == "table":
        # A prompt like "a beach [bold]" is no markup.
        rows = [{key: escape(str(value)) for key, value in row.items()} for row in rows]
    AirflowConsole().print_as(rows, args.output)
