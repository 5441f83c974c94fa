"""The house itself: no module of the package imports in a circle, and a field of a command is spelled in its spec."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import get_type_hints

import pytest

import airflow_provider_pika
from airflow_provider_pika.api.commands import COMMANDS, Command
from airflow_provider_pika.hooks.pika import PikaHook
from airflow_provider_pika.operators import pika as operators
from airflow_provider_pika.operators.base import PikaSubmitOperator

PACKAGE = "airflow_provider_pika"
ROOT = Path(airflow_provider_pika.__file__).parent
OPERATORS = {
    operator.command.name: operator
    for operator in vars(operators).values()
    if isinstance(operator, type) and issubclass(operator, PikaSubmitOperator) and hasattr(operator, "command")
}


def imports() -> dict[str, set[str]]:
    """Return which module imports which, at the top or inside a function alike; what is only for types is left out."""
    modules = {
        ".".join([PACKAGE, *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__"): path
        for path in ROOT.rglob("*.py")
    }
    found: dict[str, set[str]] = {}
    for name, path in modules.items():
        wanted: set[str] = set()
        for node in _running(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                wanted |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            elif isinstance(node, ast.Import):
                wanted |= {alias.name for alias in node.names}
        # The package's own __init__ holds the version only.
        found[name] = {module for module in wanted if module in modules and module not in (name, PACKAGE)}
    return found


def _running(node: ast.AST) -> list[ast.AST]:
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return [inner for child in node.orelse for inner in _running(child)]
    return [node, *(inner for child in ast.iter_child_nodes(node) for inner in _running(child))]


def test_no_module_imports_in_a_circle() -> None:
    found = imports()
    assert "airflow_provider_pika.waiting" in found["airflow_provider_pika.sensors.pika"], "the test sees imports"
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"a circle: {' -> '.join([*path[path.index(module) :], module])}"
        if module not in done:
            for imported in sorted(found[module]):
                visit(imported, (*path, module))
            done.add(module)

    for module in sorted(found):
        visit(module, ())


@pytest.mark.parametrize(
    ("lower", "higher"),
    [
        ("api", ("hooks", "files", "operators", "sensors", "triggers", "transfers", "callbacks", "emulator")),
        ("emulator", ("hooks", "files", "operators", "sensors", "triggers", "transfers")),
        ("hooks", ("operators", "sensors", "triggers", "transfers", "emulator")),
        ("files", ("operators", "sensors", "triggers", "transfers", "emulator")),
        ("callbacks", ("operators", "sensors", "triggers", "transfers", "emulator")),
        ("triggers", ("operators", "sensors", "transfers", "emulator")),
    ],
)
def test_arrows_go_one_way(lower: str, higher: tuple[str, ...]) -> None:
    for module, wanted in imports().items():
        if module.startswith(f"{PACKAGE}.{lower}."):
            assert not [name for name in wanted if name.split(".")[1] in higher], module


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_an_operator_takes_the_fields_of_its_command_and_templates_them(command: Command[...]) -> None:
    operator = OPERATORS[command.name]
    taken: dict[str, inspect.Parameter] = {}
    for part in reversed(operator.__mro__[: operator.__mro__.index(PikaSubmitOperator) + 1]):
        taken |= inspect.signature(part.__init__).parameters
    for spec in command.fields:
        if spec.name == "discord":
            assert spec.name not in taken, "a secret is no operator argument"
            continue
        assert spec.name in operator.template_fields
        assert (taken[spec.name].default is inspect.Parameter.empty) == (spec.required and spec.name != "button")
    own = set(inspect.signature(operator.__init__).parameters) - {"self", "kwargs"}
    assert own <= {spec.name for spec in command.fields}
    wanted = get_type_hints(command.inputs)
    for part in operator.__mro__[: operator.__mro__.index(PikaSubmitOperator) + 1]:
        for name, kind in get_type_hints(part.__init__).items():
            assert name not in command.arguments or kind == wanted[name], f"{part.__name__}({name})"


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_the_hook_has_a_method_for_each_command_with_its_fields(command: Command[...]) -> None:
    parameters = inspect.signature(getattr(PikaHook, command.name)).parameters
    assert [name for name in parameters if name != "self"] == [spec.name for spec in command.fields]


def test_every_command_has_its_operator() -> None:
    assert set(OPERATORS) == set(COMMANDS)
