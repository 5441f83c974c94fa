"""Apache Airflow provider for the useapi.net Pika API v1."""

from __future__ import annotations

__version__ = "0.1.0"

# What the API, and a store of images, sees of this package.
USER_AGENT = f"airflow-provider-pika/{__version__}"
