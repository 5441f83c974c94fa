"""What importing the operator and the sensor costs a DAG file that has imported ``airflow.sdk``."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile

from dev.bench.report import Row, Section, at_most
from dev.harness.airflow_db import clean_env

ROUNDS = 11
LIMIT = 30.0
HEAVY = frozenset({"requests", "httpx", "aiohttp", "fastapi", "starlette", "uvicorn", "flask", "connexion", "django"})
_CODE = """
import json, sys, time
import airflow.sdk
before = set(sys.modules)
began = time.perf_counter()
{}
seconds = time.perf_counter() - began
print(json.dumps([1000 * seconds, sorted(set(sys.modules) - before)]))
"""
OURS = "import airflow_provider_pika.operators.pika, airflow_provider_pika.sensors.pika"
HTTP = "import airflow.providers.http.operators.http, airflow.providers.http.sensors.http"


def run() -> Section:
    """Import in fresh processes, and return the table."""
    ours, modules = _median(OURS)
    http, their_modules = _median(HTTP)
    heavy, their_heavy = _heavy(modules), _heavy(their_modules)
    rows = [
        at_most("import of operator and sensor, ms", ours, LIMIT, "{:.0f}", http=f"{http:.0f}"),
        Row(
            "HTTP libraries and web frameworks newly loaded", heavy or "none", their_heavy or "none", "none", not heavy
        ),
        Row("modules newly loaded", str(len(modules)), str(len(their_modules))),
    ]
    about = f"Cost in a process that has imported `airflow.sdk`; median of {ROUNDS} processes."
    return Section("imports", about, rows)


def _median(statement: str) -> tuple[float, list[str]]:
    times: list[float] = []
    modules: list[str] = []
    with tempfile.TemporaryDirectory(prefix="pika-bench-") as home:
        env = {**clean_env(), "AIRFLOW_HOME": home}
        # The first round writes configuration and byte code, and does not count.
        for _ in range(ROUNDS + 1):
            code = _CODE.format(statement)
            done = subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True)
            milliseconds, modules = json.loads(done.stdout.strip().splitlines()[-1])
            times.append(milliseconds)
    return statistics.median(times[1:]), modules


def _heavy(modules: list[str]) -> str:
    return ", ".join(sorted(HEAVY.intersection(name.partition(".")[0] for name in modules)))
