"""The film an emulated job ends in: its scene as a real H.264 MP4."""

from __future__ import annotations

import io
import random
import struct
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import av

from airflow_provider_pika.emulator.scenes import HEIGHT, WIDTH

if TYPE_CHECKING:
    from airflow_provider_pika.emulator.scenes import Scene

_RATE = 24
_SECONDS = 3.0
# Every film is filled up to a size known beforehand, so a job can tell it before anybody wants the film.
# The encoder's ceiling keeps below it.
_BYTES_PER_SECOND = 80_000
_CEILING = {"maxrate": "480k", "bufsize": "240k"}
_BOX_HEADER = 8


def film_size(scene: Scene, seconds: float = _SECONDS) -> int:
    """Return how many bytes :func:`make_film` will give, without making the film."""
    return int(_BYTES_PER_SECOND * max(1.0, seconds)) + random.Random(scene.seed).randrange(4096)


@lru_cache(maxsize=16)
def make_film(scene: Scene, seconds: float = _SECONDS) -> bytes:
    """
    Make the film of a scene; the same scene gives the same film.

    :param scene: what it shows
    :param seconds: how long it plays
    """
    size = film_size(scene, seconds)
    count = max(1, round(seconds * _RATE))
    # A real file, because FFmpeg reads it again to bring the index to its front.
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "film.mp4")
        with av.open(str(target), "w", options={"movflags": "faststart"}) as container:
            stream = container.add_stream("libx264", rate=_RATE)
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            stream.options = {"preset": "veryfast", "crf": "21", "threads": "1", **_CEILING}
            for image in scene.frames(count):
                frame = av.VideoFrame.from_image(image)  # type: ignore[no-untyped-call]
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return _filled(target.read_bytes(), size)


def make_still(film: bytes) -> bytes:
    """Return a frame from the middle of a film, as a PNG."""
    with av.open(io.BytesIO(film), "r") as container:
        frames = list(container.decode(video=0))
    target = io.BytesIO()
    image = frames[len(frames) // 2].to_image()  # type: ignore[no-untyped-call]
    image.save(target, "PNG")
    return target.getvalue()


def _filled(film: bytes, size: int) -> bytes:
    """Fill an MP4 up to a size with a ``free`` box, which every player skips."""
    rest = size - len(film)
    if rest < _BOX_HEADER:
        raise RuntimeError(f"the film has {len(film)} bytes, more than the {size} announced")
    return film + struct.pack(">I4s", rest, b"free") + bytes(rest - _BOX_HEADER)
