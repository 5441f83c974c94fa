"""
Mounts the receiver of callbacks in every api-server.

Every process that runs a task imports this too and has no use for it, so it imports nothing before a call comes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk.plugins_manager import AirflowPlugin
else:
    # What a task's process has loaded already.
    try:
        from airflow.sdk.plugins_manager import AirflowPlugin
    except ImportError:  # Airflow 3.1
        from airflow.plugins_manager import AirflowPlugin


async def receiver(scope: Any, receive: Any, send: Any) -> None:
    """Hand a request to the route."""
    from airflow_provider_pika.callbacks.route import receive_callback

    await receive_callback(scope, receive, send)


class PikaCallbackPlugin(AirflowPlugin):
    """The service's way in; Airflow authenticates no route of a plugin, so the route does it by its URL's token."""

    name = "pika_callback"
    # The prefix is CALLBACK_PATH of api/callback.py, which is not worth an import here; a test compares them.
    fastapi_apps = [{"name": "Pika callbacks", "app": receiver, "url_prefix": "/pika/callback"}]  # noqa: RUF012 - as Airflow declares it
