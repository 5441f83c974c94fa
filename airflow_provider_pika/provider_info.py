"""What Airflow is told of this provider. The connection form is defined here, once."""

from __future__ import annotations

from typing import Any

from airflow_provider_pika import __version__

DEFAULT_HOST = "https://api.useapi.net"

# Shown by Airflow 3.2+ as they stand; for 3.1 the hook derives its form widgets from the same.
CONNECTION_FIELDS: dict[str, dict[str, Any]] = {
    "channel": {
        "label": "Discord channel",
        "description": "Submit through this configured channel. Empty: any configured account with room.",
        "schema": {"type": ["string", "null"]},
    },
    # The name holds "token" because Airflow redacts extras by their key: "discord" would be shown in clear.
    "discord_token": {
        "label": "Discord token",
        "description": "Only for a channel that is not configured at the API; needs the channel too.",
        "schema": {"type": ["string", "null"], "format": "password"},
    },
    "max_jobs": {
        "label": "Max jobs",
        "description": "Jobs the channel may run at once, 1 to 10. Empty: the account's own setting.",
        "schema": {"type": ["integer", "null"], "minimum": 1, "maximum": 10},
    },
    "timeout": {
        "label": "Read timeout (seconds)",
        "description": "How long to wait for an answer to a read, 20 if empty; a submit waits at least 60.",
        "schema": {"type": ["integer", "null"], "minimum": 1},
    },
    "callback_url": {
        "label": "Callback URL",
        "description": "Airflow 3.3+: this Airflow's root URL as the service reaches it, so that it reports a job's end"
        " at once; only /pika/callback/ must be reachable. Empty: jobs are polled.",
        "schema": {"type": ["string", "null"]},
    },
}

FIELD_BEHAVIOUR: dict[str, Any] = {
    "hidden-fields": ["login"],
    "relabeling": {"password": "API token", "host": "Root URL"},
    "placeholders": {
        "host": f"http://127.0.0.1:8300 (the emulator; {DEFAULT_HOST} is withdrawn)",
        "password": "user:1234-…",
    },
}


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata, as the ``apache_airflow_provider`` entry point."""
    integration = "Pika"
    root = "airflow_provider_pika"
    return {
        "package-name": "airflow-provider-pika",
        "name": integration,
        "description": "Pika video jobs through the useapi.net API: each paid for once, awaited without a worker. The"
        " hosted service has been withdrawn; an emulator comes with the package.",
        "versions": [__version__],
        "integrations": [
            {
                "integration-name": integration,
                "external-doc-url": "https://useapi.net/docs/api-pika-v1",
                "tags": ["service"],
            }
        ],
        "operators": [{"integration-name": integration, "python-modules": [f"{root}.operators.pika"]}],
        "sensors": [{"integration-name": integration, "python-modules": [f"{root}.sensors.pika"]}],
        "hooks": [{"integration-name": integration, "python-modules": [f"{root}.hooks.pika"]}],
        "triggers": [{"integration-name": integration, "python-modules": [f"{root}.triggers.pika"]}],
        # Airflow's schema wants a target integration; "Common IO" is the one that stands for any store, and comes
        # with every Airflow.
        "transfers": [
            {
                "source-integration-name": integration,
                "target-integration-name": "Common IO",
                "python-module": f"{root}.transfers.pika",
            }
        ],
        "connection-types": [
            {
                "connection-type": "pika",
                "hook-class-name": f"{root}.hooks.pika.PikaHook",
                "hook-name": integration,
                "conn-fields": CONNECTION_FIELDS,
                "ui-field-behaviour": FIELD_BEHAVIOUR,
            }
        ],
        "extra-links": [f"{root}.links.PikaVideoLink"],
        # Airflow 3.1 knows no such key and passes over it.
        "cli": [f"{root}.cli.pika_commands"],
    }
