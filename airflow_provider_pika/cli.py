"""``airflow pika …``: what runs on the account, for a person who has to look or to end it.

The same commands are behind ``python -m airflow_provider_pika``, for Airflow 3.1, which takes none from a provider.
Imported at every start of ``airflow``, so whatever is heavy is imported within the commands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow.cli.cli_config import ARG_OUTPUT, ARG_VERBOSE, ActionCommand, Arg, GroupCommand, lazy_load_command

if TYPE_CHECKING:
    from argparse import Namespace

    from airflow_provider_pika.api.job import Job
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
                "reply_ref is what a job was submitted with. The provider's own is random and names no task, so that"
                " nothing leaks; a task's reply_ref such as '{{ dag.dag_id }}/{{ run_id }}/{{ task.task_id }}' says"
                " whose the job is. In a task's log and XCom the jobid tells it too."
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
            help="Cancel a job without asking back, and say what came of it",
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
    return [GroupCommand(name="pika", help="See and cancel jobs of the useapi.net Pika API", subcommands=commands)]


def jobs(args: Namespace) -> None:
    """List the running jobs."""

    def work(hook: PikaHook) -> None:
        rows = [_row(job) for jobid in hook.list_jobs() if (job := _read(hook, jobid))]
        _show(args, rows, nothing="No job runs.")

    _run(args, work)


def job(args: Namespace) -> None:
    """Show one job."""

    def work(hook: PikaHook) -> None:
        found = hook.get_job(args.jobid).public()
        if args.output in ("table", "plain"):
            _show(args, [{"field": key, "value": value} for key, value in found.items()])
        else:
            _show(args, [found])

    _run(args, work)


def cancel(args: Namespace) -> None:
    """Cancel a job."""

    def work(hook: PikaHook) -> None:
        ended = hook.cancel_job(args.jobid)
        print(f"Asked the API to cancel {ended.jobid}: it is {ended.status or 'in an unnamed state'}.")

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


def _read(hook: PikaHook, jobid: str) -> Job | None:
    from airflow_provider_pika.exceptions import PikaNotFoundError

    try:
        return hook.get_job(jobid)
    except PikaNotFoundError:
        # Listed a moment before it can be read, or after it has ended.
        return None


def _row(job: Job) -> dict[str, Any]:
    told = job.raw
    return {
        "jobid": job.jobid,
        "status": job.status,
        "age": _age(told.get("created")),
        "command": str(told.get("verb") or "").removeprefix("pika-"),
        "prompt": told.get("prompt") or "",
        "channel": told.get("channel") or "",
        "reply_ref": told.get("replyRef") or "",
    }


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
