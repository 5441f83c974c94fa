"""Apache Airflow provider for the useapi.net Pika API v1."""

from __future__ import annotations

__version__ = "0.1.0"
