"""The one place that speaks HTTP to the Pika API."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, get_type_hints

from airflow.sdk import BaseHook

from airflow_provider_pika.api import commands, errors, reading
from airflow_provider_pika.api.advice import Root
from airflow_provider_pika.api.answers import Answer, is_apis
from airflow_provider_pika.api.job import Job
from airflow_provider_pika.exceptions import (
    PikaError,
    PikaJobFailedError,
    PikaRequestError,
    PikaUnavailableError,
    PikaUnknownOutcomeError,
)
from airflow_provider_pika.hooks.settings import PikaSettings, is_token
from airflow_provider_pika.hooks.transport import Transport
from airflow_provider_pika.provider_info import CONNECTION_FIELDS, FIELD_BEHAVIOUR

if TYPE_CHECKING:
    import requests

    from airflow_provider_pika.files.multipart import ImagePart

P = ParamSpec("P")
T = TypeVar("T")
Reader = Callable[[commands.Call, Root, Answer], T]


def _submits(command: commands.Command[P]) -> Callable[Concatenate[PikaHook, P], Job]:
    """Return the hook's method that submits a command."""

    def submit(self: PikaHook, /, *args: P.args, **fields: P.kwargs) -> Job:
        call = self.prepare(command, *args, **fields)
        with self.open_files(call) as files:
            return self.send(call, files)

    parameters = inspect.signature(command.inputs).parameters
    types = get_type_hints(command.inputs)
    fields = [parameters[spec.name].replace(annotation=types[spec.name]) for spec in command.fields]
    submit.__name__ = command.name
    submit.__qualname__ = f"PikaHook.{command.name}"
    submit.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY), *fields], return_annotation="Job"
    )
    about = (inspect.getdoc(command.inputs) or "").rstrip(".")
    submit.__doc__ = (
        f"Submit a job, which costs money, and return it as started. {about}.\n\n"
        "Takes the fields of the operator of the same command, and raises as :meth:`prepare`, :meth:`open_files` and"
        " :meth:`send` do. After a :class:`~airflow_provider_pika.exceptions.PikaUnknownOutcomeError` a job may exist:"
        " unlike the operators, the hook does not look for it."
    )
    return submit


class PikaHook(BaseHook):
    """
    Talk to the useapi.net Pika API v1.

    The hook sends each call once (a read is repeated only when no connection could be made), follows
    no redirect, and never sleeps: waiting is the business of sensor, operator and trigger. Every call
    ends, whatever hangs, and several threads may call at the same time.

    :param pika_conn_id: the Airflow connection of type ``pika``
    :param image_max_bytes: refuse a larger image before anything is sent; default 25 MiB
    """

    conn_name_attr = "pika_conn_id"
    default_conn_name = "pika_default"
    conn_type = "pika"
    hook_name = "Pika"

    def __init__(
        self, pika_conn_id: str = default_conn_name, *, image_max_bytes: int = commands.IMAGE_MAX_BYTES, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.pika_conn_id = pika_conn_id
        self.image_max_bytes = image_max_bytes

    @cached_property
    def settings(self) -> PikaSettings:
        """
        The connection, read once.

        :raises PikaUnavailableError: when it is missing or cannot be read just now, naming what to put where
        :raises PikaRequestError: when it is unusable, naming what to put where
        """
        from airflow.sdk.log import mask_secret

        try:
            conn = self.get_connection(self.pika_conn_id)
        # Airflow hands a failing secrets backend over as "not found", and a backend may raise anything: 25 s of that
        # failed every wait for good, so none of it is final.
        except Exception as error:
            # Its text stays out of ours: a connection that cannot be parsed may be quoted in it. So do its frames, with
            # which Airflow's log would show it.
            error.with_traceback(None)
            raise PikaUnavailableError(
                f"The Airflow connection {self.pika_conn_id!r} does not exist or could not be read"
                f" ({type(error).__name__}): see that there is one of type 'pika' with the API token as its password"
                " and the root URL as its host, and that the secrets backend answers. Outside of a task, as in a"
                " notebook, Airflow does not look into its database: there export"
                f" AIRFLOW_CONN_{str(self.pika_conn_id).upper()}, or use 'airflow pika'. Nothing was sent."
            ) from error
        settings = PikaSettings.from_connection(self.pika_conn_id, conn)
        mask_secret(settings.token)
        if settings.discord:
            mask_secret(settings.discord)
        return settings

    @cached_property
    def _transport(self) -> Transport:
        return Transport(self.settings)

    def get_conn(self) -> requests.Session:
        """Return the session all calls of this hook share, authorized and kept alive."""
        return self._transport.session

    def prepare(self, command: commands.Command[P], /, *args: P.args, **fields: P.kwargs) -> commands.Call:
        """
        Check the fields of a submit and return its call, without sending it.

        ``discord``, ``channel`` and ``max_jobs`` default to the connection's extras.

        :param command: what to submit, out of :mod:`airflow_provider_pika.api.commands`
        :raises PikaRequestError: for bad input, or an unusable connection
        :raises PikaUnavailableError: when the connection is missing or cannot be read just now
        """
        filled: dict[str, Any] = dict(fields)
        if filled.get("discord"):
            _mask_discord(str(filled["discord"]))
        for name in ("discord", "channel", "max_jobs"):
            if any(spec.name == name for spec in command.fields) and filled.get(name) in (None, ""):
                filled[name] = getattr(self.settings, name)
        untyped: commands.Command[...] = command
        return commands.prepare(untyped, *args, **filled)

    @contextmanager
    def open_files(self, call: commands.Call) -> Iterator[dict[str, ImagePart]]:
        """
        Open the images of a call, fetching first what lies elsewhere: nothing can break once the submit has begun.

        :raises PikaRequestError: when one is missing, empty, too large or no image; nothing was sent
        :raises PikaUnavailableError: when fetching it failed in a way that may pass
        """
        with ExitStack() as stack:
            files: dict[str, ImagePart] = {}
            for name, source in call.files.items():
                from airflow_provider_pika.files.image import open_image

                files[name] = stack.enter_context(open_image(source, self.image_max_bytes))
            yield files

    def send(
        self,
        call: commands.Call,
        files: Mapping[str, ImagePart],
        *,
        before_body: Callable[[], None] | None = None,
        after_body: Callable[[], None] | None = None,
    ) -> Job:
        """
        Send a submit, which costs money, and return its job as started.

        Both callbacks run in a thread of the call's own, with the caller's context variables.

        :param call: what :meth:`prepare` returned
        :param files: its images, as :meth:`open_files` has opened them
        :param before_body: called once, just before the first byte of the body leaves; what it raises comes out of
            here as it is, and nothing has been sent
        :param after_body: called when the last byte has been handed to the socket; must not raise
        :raises PikaRequestError: for a 400
        :raises PikaQueueFullError: when the channel runs as many jobs as it may; no job was made
        :raises PikaRateLimitedError: when a pause is asked for; no job was made
        :raises PikaModeratedError: when the input was refused (422)
        :raises PikaAuthError: for a 401
        :raises PikaPaymentError: for a 402
        :raises PikaUnavailableError: when the submit certainly never left
        :raises PikaUnknownOutcomeError: when the answer was lost: a job may exist
        """
        return self._send(call, reading.read_job, files, before_body, after_body)

    encrypt_text = _submits(commands.ENCRYPT_TEXT)
    create = _submits(commands.CREATE)
    animate = _submits(commands.ANIMATE)
    encrypt_image = _submits(commands.ENCRYPT_IMAGE)
    button = _submits(commands.BUTTON)

    def get_job(self, jobid: str) -> Job:
        """
        Read one job.

        :raises PikaNotFoundError: when the API does not know it (a fresh one might be unknown for a moment)
        :raises PikaAuthError: for a 401
        :raises PikaRateLimitedError: when a pause is asked for
        :raises PikaUnavailableError: for a fault that may pass
        """
        return self._send(commands.get_job(jobid), reading.read_job)

    def list_jobs(self) -> list[str]:
        """
        Return the jobids now running under the API token, over all its channels.

        :raises PikaError: as :meth:`get_job` does
        """
        return self._send(commands.list_jobs(), reading.read_jobids)

    def cancel_job(self, jobid: str) -> Job:
        """
        Cancel a job. One that has already ended is fine: the returned job tells its state.

        :raises PikaError: as :meth:`get_job` does
        """
        return self._send(commands.cancel_job(jobid), reading.read_job)

    def list_accounts(self) -> dict[str, Any]:
        """
        Return the configured Discord accounts by channel, empty when none is configured.

        :raises PikaError: as :meth:`get_job` does
        """
        return self._send(commands.list_accounts(), reading.read_accounts)

    def get_account(self, channel: str) -> dict[str, Any]:
        """
        Return one configured account.

        :raises PikaNotFoundError: when no account is configured for the channel
        """
        return self._send(commands.get_account(channel), reading.read_object)

    def set_account(self, channel: str, *, discord: str, max_jobs: int | str) -> None:
        """
        Configure the Discord account of a channel, or change it; this costs nothing.

        :param discord: its Discord token, which is masked and never logged
        :param max_jobs: how many jobs the channel may run at once, 1 to 10
        """
        _mask_discord(discord)
        self._send(commands.set_account(channel, discord=discord, max_jobs=max_jobs), reading.read_nothing)

    def delete_account(self, channel: str) -> None:
        """
        Forget the configured account of a channel.

        :raises PikaNotFoundError: when no account is configured for the channel
        """
        self._send(commands.delete_account(channel), reading.read_nothing)

    def test_connection(self) -> tuple[bool, str]:
        """Ask the API whether it knows the token, which costs nothing; the *Test* button's method."""
        try:
            self._send(commands.check_token(), reading.read_object)
        except PikaError as error:
            return False, str(error)
        # Without the connection's id: Airflow's page tests a copy under a random one.
        return True, f"The API at {self.settings.base_url} accepts the token."

    def job_failed(self, job: Job) -> PikaJobFailedError:
        """Return the error for a job that ended badly, naming the URL that tells of it."""
        try:
            root = self.settings.root
        except PikaError:
            # Only the text needs it: a connection that cannot be read just now must not hide how the job ended.
            root = Root("", self.pika_conn_id)
        return errors.job_failed(job, root)

    def wrong_root(self, lost: PikaUnknownOutcomeError) -> PikaUnavailableError | None:
        """
        Return what to raise where a submit was answered by somebody who is not the API; None if the API may be there.

        Asks the host once more where the answer was not the API's: ``GET /v2/account``, which is free.

        :param lost: what the submit raised
        """
        if not lost.foreign:
            return None
        try:
            answer = self._transport.send(commands.check_token())
        except PikaError:
            return None
        return None if is_apis(answer) else errors.wrong_root(self.settings.root, lost, answer)

    def _send(
        self,
        call: commands.Call,
        read: Reader[T],
        files: Mapping[str, ImagePart] | None = None,
        before_body: Callable[[], None] | None = None,
        after_body: Callable[[], None] | None = None,
    ) -> T:
        answer = self._transport.send(call, files, before_body=before_body, after_body=after_body)
        return read(call, self.settings.root, answer)

    # The connection form of Airflow 3.1, derived from the one that later versions take from provider_info.

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the form's extra fields as WTForms fields."""
        from wtforms import IntegerField, PasswordField, StringField
        from wtforms.validators import Optional

        def widget(about: dict[str, Any]) -> Any:
            schema = about["schema"]
            kind = PasswordField if schema.get("format") == "password" else StringField
            kind = IntegerField if "integer" in schema["type"] else kind
            return kind(about["label"], description=about["description"], validators=[Optional()])

        return {name: widget(about) for name, about in CONNECTION_FIELDS.items()}

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return labels, placeholders and hidden fields of the form."""
        return {name.replace("-", "_"): value for name, value in FIELD_BEHAVIOUR.items()}


def _mask_discord(discord: str) -> None:
    """
    Mask a Discord token given as an argument in Airflow's logs, as the connection's is.

    :raises PikaRequestError: for what cannot be one, without quoting it
    """
    from airflow.sdk.log import mask_secret

    if not is_token(discord):
        raise PikaRequestError("discord holds characters that no token has: copy it anew. Nothing was sent.")
    mask_secret(discord)
