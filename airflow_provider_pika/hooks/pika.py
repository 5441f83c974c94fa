"""The one place that speaks HTTP to the Pika API."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.sdk import BaseHook

from airflow_provider_pika.api import commands, errors
from airflow_provider_pika.api.job import Job
from airflow_provider_pika.exceptions import PikaError, PikaJobFailedError, PikaRequestError, PikaUnavailableError
from airflow_provider_pika.hooks.settings import IMAGE_MAX_BYTES, PikaSettings, is_token
from airflow_provider_pika.hooks.transport import Transport
from airflow_provider_pika.provider_info import CONNECTION_FIELDS, FIELD_BEHAVIOUR

if TYPE_CHECKING:
    import requests

    from airflow_provider_pika.hooks.multipart import ImagePart

T = TypeVar("T")
Reader = Callable[[commands.Call, str, errors.Answer], T]


class PikaHook(BaseHook):
    """
    Talk to the useapi.net Pika API v1.

    The hook sends each call once (a read is repeated only when no connection could be made), follows
    no redirect, and never sleeps: waiting is the business of sensor, operator and trigger. Every call has
    an end, whatever hangs. Several threads may use one hook at the same time, as the triggerer's do.

    :param pika_conn_id: the Airflow connection of type ``pika``
    :param image_max_bytes: refuse a larger image before anything is sent
    """

    conn_name_attr = "pika_conn_id"
    default_conn_name = "pika_default"
    conn_type = "pika"
    hook_name = "Pika"

    def __init__(
        self, pika_conn_id: str = default_conn_name, *, image_max_bytes: int = IMAGE_MAX_BYTES, **kwargs: Any
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
            # Its text stays out of ours: a connection that cannot be parsed may be quoted in it.
            raise PikaUnavailableError(
                f"The Airflow connection {self.pika_conn_id!r} does not exist or could not be read"
                f" ({type(error).__name__}): see that there is one of type 'pika' with the API token as its password"
                " and the root URL as its host, and that the secrets backend answers. Nothing was sent."
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

    def encrypt_text(
        self,
        *,
        message: str,
        prompt: str,
        font: str | None = None,
        image: str | ImagePart | None = None,
        discord: str | None = None,
        channel: str | None = None,
        max_jobs: int | str | None = None,
        reply_url: str | None = None,
        reply_ref: str | None = None,
    ) -> Job:
        """
        Submit an ``encrypt_text`` job, which costs money, and return it as started.

        ``discord``, ``channel`` and ``max_jobs`` default to the connection's extras.

        :param message: the text to hide in the video, at most 20 UTF-16 units
        :param prompt: what the video shows, at most 1500 UTF-16 units
        :param font: MODERN, COMICS, SANS SERIF, BAUHAUS or RETRO
        :param image: an image: local path, ``http(s)://``, ``file://`` or any ``ObjectStoragePath`` URL; or one that
            :meth:`open_image` has opened
        :param discord: token of a Discord account that is not configured at the API; needs ``channel``
        :param channel: the Discord channel to submit through
        :param max_jobs: how many jobs the channel may run at once, 1 to 10
        :param reply_url: where the service should POST the ended job, at most 1024 units
        :param reply_ref: a reference that comes back in every answer about the job, at most 1024 units
        :raises PikaRequestError: for bad input, before anything is sent, or a 400
        :raises PikaQueueFullError: when the channel runs as many jobs as it may; no job was made
        :raises PikaRateLimitedError: when a pause is asked for; no job was made
        :raises PikaModeratedError: when the input was refused (422)
        :raises PikaAuthError: for a 401
        :raises PikaPaymentError: for a 402
        :raises PikaUnavailableError: when the submit certainly never left
        :raises PikaUnknownOutcomeError: when the answer was lost: a job may exist
        """
        call = self.encrypt_text_call(
            message=message,
            prompt=prompt,
            font=font,
            discord=discord,
            channel=channel,
            max_jobs=max_jobs,
            reply_url=reply_url,
            reply_ref=reply_ref,
        )
        with self.open_image(image) as part:
            return self.send(call, part)

    def send(
        self,
        call: commands.Call,
        image: ImagePart | None = None,
        *,
        before_body: Callable[[], None] | None = None,
        after_body: Callable[[], None] | None = None,
    ) -> Job:
        """
        Send a submit, which costs money, and return its job as started.

        Both callbacks run in a thread of the call's own, with the caller's context variables.

        :param call: what :meth:`encrypt_text_call` returned
        :param image: an image that :meth:`open_image` has opened
        :param before_body: called once, just before the first byte of the body leaves; what it raises comes out of
            here as it is, and nothing has been sent
        :param after_body: called when the last byte has been handed to the socket; must not raise
        :raises PikaError: as :meth:`encrypt_text` does
        """
        return self._send(call, errors.read_job, image, before_body, after_body)

    def encrypt_text_call(
        self,
        *,
        discord: str | None = None,
        channel: str | None = None,
        max_jobs: int | str | None = None,
        **fields: Any,
    ) -> commands.Call:
        """
        Check the fields of an :meth:`encrypt_text` and return the call, without sending it.

        :raises PikaRequestError: for bad input, or an unusable connection
        :raises PikaUnavailableError: when the connection is missing or cannot be read just now
        """
        if discord:
            _mask_discord(discord)
        return commands.encrypt_text(
            discord=discord or self.settings.discord,
            channel=channel or self.settings.channel,
            max_jobs=self.settings.max_jobs if max_jobs is None else max_jobs,
            **fields,
        )

    def open_image(self, image: str | ImagePart | None) -> AbstractContextManager[ImagePart | None]:
        """
        Open an image for :meth:`encrypt_text`, fetching it first if it lies elsewhere.

        :param image: as :meth:`encrypt_text` takes it; one that is open already stays so
        :raises PikaRequestError: when it is missing, empty, too large or no image; nothing was sent
        """
        if not image:
            return nullcontext()
        if isinstance(image, tuple):
            return nullcontext(image)
        from airflow_provider_pika.hooks.image import open_image

        return open_image(str(image), self.image_max_bytes)

    def get_job(self, jobid: str) -> Job:
        """
        Read one job.

        :raises PikaNotFoundError: when the API does not know it (a fresh one might be unknown for a moment)
        :raises PikaUnavailableError: for a fault that may pass
        """
        return self._send(commands.get_job(jobid), errors.read_job)

    def list_jobs(self) -> list[str]:
        """Return the jobids now running under the API token, over all its channels."""
        return self._send(commands.list_jobs(), errors.read_jobids)

    def cancel_job(self, jobid: str) -> Job:
        """Cancel a job. One that has already ended is fine: the returned job tells its state."""
        return self._send(commands.cancel_job(jobid), errors.read_job)

    def list_accounts(self) -> dict[str, Any]:
        """Return the configured Discord accounts by channel, empty when none is configured."""
        return self._send(commands.list_accounts(), errors.read_accounts)

    def test_connection(self) -> tuple[bool, str]:
        """Ask the API whether it knows the token, which costs nothing; the *Test* button's method."""
        try:
            self._send(commands.check_token(), errors.read_object)
        except PikaError as error:
            return False, str(error)
        return True, f"The API at {self.settings.base_url} accepts the token."

    def job_failed(self, job: Job) -> PikaJobFailedError:
        """Return the error for a job that ended badly, naming the URL that tells of it."""
        try:
            base_url = self.settings.base_url
        except PikaError:
            # Only the text needs it: a connection that cannot be read just now must not hide how the job ended.
            base_url = ""
        return errors.job_failed(job, base_url)

    def _send(
        self,
        call: commands.Call,
        read: Reader[T],
        image: ImagePart | None = None,
        before_body: Callable[[], None] | None = None,
        after_body: Callable[[], None] | None = None,
    ) -> T:
        answer = self._transport.send(call, image, before_body=before_body, after_body=after_body)
        return read(call, self.settings.base_url + call.target, answer)

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
