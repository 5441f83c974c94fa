"""
An example of a renderer, which makes the emulator's own film.

``python -m airflow_provider_pika.emulator --renderer "python -m airflow_provider_pika.emulator.render"``
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_pika.api.commands import COMMANDS
from airflow_provider_pika.emulator.film import make_film
from airflow_provider_pika.emulator.jobs import Submit, Upload
from airflow_provider_pika.emulator.scenes import scene_of, small_copy

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from PIL import Image

    from airflow_provider_pika.emulator.scenes import Scene


@dataclass(frozen=True)
class _Told:
    """A scene that tells how far its film has come."""

    scene: Scene

    @property
    def seed(self) -> bytes:
        """The scene's own."""
        return self.scene.seed

    def frames(self, count: int) -> Iterator[Image.Image]:
        """Draw the scene's frames."""
        for number, frame in enumerate(self.scene.frames(count)):
            if number % 12 == 0:
                print(f"{100 * number // count}%", flush=True)
            yield frame


def main(argv: Sequence[str] | None = None) -> int:
    """Read a job from stdin, write its film to the path given; return the exit code."""
    (film,) = sys.argv[1:] if argv is None else argv
    job: dict[str, Any] = json.load(sys.stdin)
    command = COMMANDS[job["verb"].removeprefix("pika-")]
    files, texts = {}, {}
    for name in [spec.api_name for spec in command.fields if spec.api_name in job]:
        if next(spec for spec in command.fields if spec.api_name == name).is_file:
            with Path(job[name]).open("rb") as picture:
                copy = small_copy(picture)
            files[name] = Upload(0, "image/*", copy.jpeg if copy else None)
        else:
            texts[name] = job[name]
    Path(film).write_bytes(make_film(_Told(scene_of(Submit(command, texts, files), job.get("take", 0)))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
