"""
Submitting a job: one thin operator for each command of the API, with its arguments and their meaning.

What they do, and the arguments they share, is told in
:class:`~airflow_provider_pika.operators.base.PikaSubmitOperator`;
what a field may hold is told once, in :mod:`airflow_provider_pika.api.commands`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow_provider_pika.api.commands import ANIMATE, BUTTON, CREATE, ENCRYPT_IMAGE, ENCRYPT_TEXT
from airflow_provider_pika.operators.base import PikaChannelSubmitOperator, PikaSubmitOperator


class EncryptTextOperator(PikaChannelSubmitOperator):
    """
    Submit an ``encrypt_text`` job, a video that hides a text; it costs money. Return its jobid.

    :param message: the text hidden in the video, at most 20 UTF-16 units (templated)
    :param prompt: what the video shows, at most 1500 UTF-16 units (templated)
    :param font: MODERN, COMICS, SANS SERIF, BAUHAUS or RETRO (templated)
    :param image: reference image: a local path, ``http(s)://``, ``file://``, or any URL ``ObjectStoragePath`` takes,
        as ``s3://conn_id@bucket/key``; a PNG, JPEG, GIF, WebP or BMP (templated)
    """

    command = ENCRYPT_TEXT
    template_fields: Sequence[str] = (*ENCRYPT_TEXT.arguments, "pika_conn_id")

    def __init__(
        self,
        *,
        message: str,
        prompt: str,
        font: str | None = None,
        image: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.message = message
        self.prompt = prompt
        self.font = font
        self.image = image


class CreateOperator(PikaChannelSubmitOperator):
    """
    Submit a ``create`` job, a video of a prompt; it costs money. Return its jobid.

    :param prompt: what the video shows, at most 1500 UTF-16 units (templated)
    :param image: its first frame, from anywhere :class:`EncryptTextOperator` takes one (templated)
    """

    command = CREATE
    template_fields: Sequence[str] = (*CREATE.arguments, "pika_conn_id")

    def __init__(
        self,
        *,
        prompt: str,
        image: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.prompt = prompt
        self.image = image


class AnimateOperator(PikaChannelSubmitOperator):
    """
    Submit an ``animate`` job, an image that moves; it costs money. Return its jobid.

    :param image: the image, from anywhere :class:`EncryptTextOperator` takes one (templated)
    :param prompt: how it moves, at most 1500 UTF-16 units (templated)
    """

    command = ANIMATE
    template_fields: Sequence[str] = (*ANIMATE.arguments, "pika_conn_id")

    def __init__(
        self,
        *,
        image: str,
        prompt: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.image = image
        self.prompt = prompt


class EncryptImageOperator(PikaChannelSubmitOperator):
    """
    Submit an ``encrypt_image`` job, a video that hides an image; it costs money. Return its jobid.

    :param message: the image to hide, from anywhere :class:`EncryptTextOperator` takes one (templated)
    :param prompt: what the video shows, at most 1500 UTF-16 units (templated)
    :param image: reference image, from anywhere too (templated)
    """

    command = ENCRYPT_IMAGE
    template_fields: Sequence[str] = (*ENCRYPT_IMAGE.arguments, "pika_conn_id")

    def __init__(
        self,
        *,
        message: str,
        prompt: str,
        image: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.message = message
        self.prompt = prompt
        self.image = image


class ButtonOperator(PikaSubmitOperator):
    """
    Press a button under a completed job, which makes a new job of it; it costs money. Return the new job's jobid.

    It runs on the channel of the job it belongs to.

    :param jobid: the completed job, as ``submit.output`` (templated)
    :param button: which one; the API knows only ``retry``, the same job once more (templated)
    """

    command = BUTTON
    template_fields: Sequence[str] = (*BUTTON.arguments, "pika_conn_id")

    def __init__(
        self,
        *,
        jobid: str,
        button: str = "retry",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.jobid = jobid
        self.button = button
