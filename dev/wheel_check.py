"""Builds the wheel, installs it beside a pinned Airflow in a fresh environment, and lets Airflow tell what it sees."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from dev.harness.airflow_db import clean_env

ROOT = Path(__file__).parents[1]
NAME = "airflow-provider-pika"
# What Airflow or Python say when something about a provider is amiss; nothing of it may concern ours.
_TROUBLE = re.compile(r"warn|error|exception|deprecat|could not|failed", re.IGNORECASE)
_OURS = re.compile(r"pika", re.IGNORECASE)


def main() -> int:
    """Run all steps; the first that fails raises."""
    uv = Path(sys.prefix, "bin", "uv")
    with tempfile.TemporaryDirectory(prefix="wheel-check-") as folder:
        built = Path(folder, "dist")
        _run([sys.executable, "-m", "build", "--no-isolation", "--outdir", built, ROOT])
        (wheel,) = built.glob("*.whl")
        names = zipfile.ZipFile(wheel).namelist()
        print(f"  {wheel.name}: {len(names)} files")
        strays = [name for name in names if not name.startswith("airflow_provider_pika")]
        assert not strays, f"the wheel brings files that are not of the package: {strays}"
        assert "airflow_provider_pika/py.typed" in names, "the wheel lacks py.typed"

        venv = Path(folder, "venv")
        _run([uv, "venv", "--quiet", "--python", sys.executable, venv])
        pinned = [ROOT / "requirements" / "airflow-3.3.txt"]
        install = [uv, "pip", "install", "--quiet", "--python", venv / "bin" / "python"]
        _run([*install, "-r", *pinned])
        # With its dependencies: what the wheel asks for must agree with the pinned environment.
        _run([*install, "--offline", wheel])
        env = {**clean_env(), "AIRFLOW_HOME": str(Path(folder, "home"))}
        env.pop("PYTHONPATH", None)
        _run([venv / "bin" / "airflow", "db", "migrate"], env=env)
        for command, expected in {
            ("get", NAME): NAME,
            ("hooks",): "airflow_provider_pika.hooks.pika.PikaHook",
            ("links",): "",
            ("list",): NAME,
        }.items():
            _ask(venv / "bin" / "airflow", ["providers", *command, "--output", "plain"], expected, env)
        _ask(venv / "bin" / "airflow", ["plugins", "--output", "json"], "callbacks.plugin:PikaCallbackPlugin", env)
    print("  the wheel installs, and Airflow shows it without a warning of ours")
    return 0


def _ask(airflow: Path, command: list[str], expected: str, env: dict[str, str]) -> None:
    said = _run([airflow, *command], env={**env, "PYTHONWARNINGS": "always"})
    assert expected in said, f"airflow {' '.join(command)} does not show {expected}:\n{said}"
    trouble = [line for line in said.splitlines() if _TROUBLE.search(line) and _OURS.search(line)]
    assert not trouble, f"airflow {' '.join(command)} complains:\n" + "\n".join(trouble)
    print(f"  airflow {' '.join(command)}: as it should be")


def _run(command: list[str | Path], env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        env=env or dict(os.environ),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=tempfile.gettempdir(),  # not the repository, whose package would hide the wheel's
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(str(part) for part in command)} failed:\n{done.stdout[-4000:]}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
