"""``python -m airflow_provider_pika``: the commands of ``airflow pika``, on every Airflow."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from airflow_provider_pika.cli import pika_commands


def parser() -> argparse.ArgumentParser:
    """Return the parser of the same commands as Airflow's."""
    (group,) = pika_commands()
    made = argparse.ArgumentParser(prog="python -m airflow_provider_pika", description=f"{group.help}.")
    commands = made.add_subparsers(required=True, metavar="COMMAND")
    for command in group.subcommands:
        one = commands.add_parser(command.name, help=command.help, description=command.help, epilog=command.epilog)
        for argument in command.args:
            argument.add_to_parser(one)
        one.set_defaults(func=command.func)
    return made


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command."""
    arguments = parser().parse_args(argv)
    arguments.func(arguments)


if __name__ == "__main__":
    main()
