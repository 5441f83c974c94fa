"""The command line: ``python -m airflow_provider_pika.emulator``."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import shutil
import signal
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_provider_pika.api.commands import MAX_JOBS_LIMIT
from airflow_provider_pika.emulator import missing_extra
from airflow_provider_pika.emulator.client import EmulatorClient
from airflow_provider_pika.emulator.settings import (
    DEFAULT_CHANNEL,
    DEFAULT_LINK_SECONDS,
    DEFAULT_RENDERER_LIMIT,
    DEFAULT_SECONDS,
    DEFAULT_TOKEN,
    Pace,
    Settings,
    number,
    whole_number,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_EPILOG = """\
Markers in a prompt make things go wrong: [emulator:failed], [emulator:queue_full], [emulator:drop_after],
[emulator:stuck], [emulator:seconds=40] and more; python -m pydoc airflow_provider_pika.emulator.markers lists them."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the emulator until Ctrl-C; return the exit code."""
    settings, options = _settings(argv)
    if lacking := missing_extra():
        print(lacking, file=sys.stderr)
        return 1
    # Not before the check above: this is what needs the extra's packages.
    from airflow_provider_pika.emulator.server import Server

    say = None if options.quiet else lambda line: print(line, flush=True)
    try:
        server = Server(settings, host=options.host, port=options.port, say=say)
    except OSError as problem:
        print(
            f"The emulator cannot listen on {options.host}:{options.port}: {problem.strerror}. If another one runs"
            " there, take a port of your own: --port 0 finds one.",
            file=sys.stderr,
        )
        return 1
    print(_welcome(server.url, settings), flush=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        server.run()
    counters = server.app.state.told()
    print(
        f"Pika emulator ended: {counters['requests']} requests, {counters['submits']['asked']} submits,"
        f" {len(counters['jobs'])} jobs made, {counters['attachments']} downloads,"
        f" {counters['token_leaks']} token leaks.",
        flush=True,
    )
    return 0


def _settings(argv: Sequence[str] | None) -> tuple[Settings, argparse.Namespace]:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_pika.emulator",
        description="A local server that follows the Pika API v1 contract: the hosted service has been withdrawn, and"
        " this is what DAGs run against. Its jobs cost nothing.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--port",
        type=_port,
        default=8300,
        help="0 for any free one (default: %(default)s)",
    )
    add(
        "--host",
        default="127.0.0.1",
        help="beyond the loopback anybody can script it (default: %(default)s)",
    )
    add(
        "--token",
        default=DEFAULT_TOKEN,
        help="the API token it accepts (default: %(default)s)",
    )
    pace = parser.add_mutually_exclusive_group()
    pace.add_argument(
        "--seconds",
        type=float,
        default=DEFAULT_SECONDS,
        help="how long a job takes, 0: at once (default: %(default)g)",
    )
    pace.add_argument("--reads", type=int, help="a job ends with its n-th read instead")
    add(
        "--max-jobs",
        type=int,
        default=MAX_JOBS_LIMIT,
        help="jobs an account runs at once (default: %(default)s)",
    )
    add(
        "--channel",
        action="append",
        metavar="ID[=MAX_JOBS]",
        help=f"a configured account; may be repeated (default: {DEFAULT_CHANNEL})",
    )
    add(
        "--link-seconds",
        type=float,
        default=DEFAULT_LINK_SECONDS,
        help="how long the link of a film lasts (default: %(default)g)",
    )
    add(
        "--renderer",
        type=shlex.split,
        default=[],
        metavar="CMD",
        help="a program that makes each job's film; python -m pydoc airflow_provider_pika.emulator.renderer tells how",
    )
    add(
        "--renderer-limit",
        type=float,
        default=DEFAULT_RENDERER_LIMIT,
        metavar="SECONDS",
        help="how long it may take for one film (default: %(default)g)",
    )
    add("--quiet", action="store_true", help="no line per request")
    options = parser.parse_args(argv)
    if options.renderer and not shutil.which(options.renderer[0]):
        parser.error(f"--renderer names no program that can be run: {options.renderer[0]!r}")
    try:
        channels = dict(_channel(text, options.max_jobs) for text in options.channel or [DEFAULT_CHANNEL])
        settings = Settings(token=options.token).changed(
            {
                "channels": channels,
                "link_seconds": options.link_seconds,
                **({"seconds": options.seconds} if options.reads is None else {"reads": options.reads}),
            }
        )
        limit = number("--renderer-limit", options.renderer_limit)
        settings = replace(settings, renderer=tuple(options.renderer), renderer_limit=limit)
    except ValueError as wrong:
        parser.error(str(wrong))
    return settings, options


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is no port: give one from 1 to 65535, or 0 for any free one")
    return port


def _channel(text: str, limit: int) -> tuple[str, int]:
    name, _, own = text.partition("=")
    if not name:
        raise ValueError(f"--channel {text}: a channel has a name, as in --channel 1234=3")
    if not own:
        return name, whole_number("--max-jobs", limit)
    return name, whole_number(f"--channel {name}: MAX_JOBS", int(own) if own.isdecimal() else own)


def _welcome(url: str, settings: Settings) -> str:
    client = EmulatorClient(url, settings.token)
    if settings.renderer:
        ending = f"with their renderer, {shlex.join(settings.renderer)}"
    else:
        ending = f"at read {settings.pace.reads}" if settings.pace.reads else _after(settings.pace)
    accounts = ", ".join(f"{channel} (runs {limit} at once)" for channel, limit in settings.channels.items())
    return "\n".join(
        [
            f"Pika emulator on {url}  (Ctrl-C ends it)",
            f"  API token   {settings.token}",
            f"  jobs        end {ending}; accounts: {accounts}",
            f"  Airflow     export AIRFLOW_CONN_PIKA_DEFAULT={shlex.quote(client.conn_uri)}",
            f"  watch       {url}/",
        ]
    )


def _after(pace: Pace) -> str:
    return f"after {pace.seconds:g} s" if pace.seconds else "at once"


if __name__ == "__main__":
    sys.exit(main())
