"""Where the service is to report the end of a submit's job: a mailbox of the task's own, a URL of the user's, nowhere.

The api-server puts each jobid it is told of into the mailbox (:mod:`airflow_provider_pika.callbacks`), a later attempt
looks there for the job of a submit whose answer nobody has seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_pika.api.callback import mailbox_key, new_token, reply_url

if TYPE_CHECKING:
    from airflow.sdk.types import Logger


class Reply(NamedTuple):
    """
    What a submit is sent with for its job to find its way back.

    :param ref: its ``replyRef``
    :param url: its ``replyUrl``; None for that of the account, if it has one. Ours holds a token, which is a secret
    :param mailbox: the key of the mailbox that our URL leads to
    """

    ref: str
    url: str | None
    mailbox: str | None = None


def reply_to(
    ref: str, *, ti: Any, has_store: bool, callback_url: str | None, own_url: str | None, log: Logger
) -> Reply:
    """
    Return with what a submit is sent; its mailbox is yet to be opened.

    :param ref: its ``replyRef``
    :param has_store: whether this Airflow has a task state store, which the api-server can write
    :param callback_url: the connection's
    :param own_url: the user's own ``reply_url``
    """
    if callback_url is None:
        return Reply(ref, own_url)
    if own_url:
        log.info("This task has a reply_url of its own, so the end of its job is polled for, not called back.")
        return Reply(ref, own_url)
    if not has_store:
        log.info("Callbacks need Airflow 3.3: on this one the connection's callback_url is left aside.")
        return Reply(ref, None)
    # Imported here: only a submit needs it, and an operator's module is imported at every DAG parse.
    from airflow.sdk.log import mask_secret

    token = new_token()
    mask_secret(token)
    return Reply(ref, reply_url(callback_url, str(ti.id), token), mailbox_key(token))
