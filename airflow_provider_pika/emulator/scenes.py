"""What the emulator's films show: a scene a command, drawn frame by frame."""

from __future__ import annotations

import io
import math
import random
from colorsys import hsv_to_rgb
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, NamedTuple, Protocol

from PIL import Image, ImageChops, ImageDraw, ImageOps

from airflow_provider_pika.api.commands import ANIMATE, CREATE
from airflow_provider_pika.emulator.lettering import lettered

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_pika.emulator.jobs import Submit

WIDTH, HEIGHT = 640, 360
_SIZE = (WIDTH, HEIGHT)
_ROWS = 5
# Room around an animated picture to pan and zoom in.
_ROOM = 1.25
_COPY = (int(_ROOM * WIDTH), int(_ROOM * HEIGHT))


class Scene(Protocol):
    """Something to film; equal scenes look alike."""

    def __hash__(self) -> int:
        """Films are remembered by their scenes."""

    @property
    def seed(self) -> bytes:
        """What decides everything that is left to chance."""

    def frames(self, count: int) -> Iterator[Image.Image]:
        """Draw that many frames."""


def scene_of(asked: Submit, take: int = 0) -> Scene:
    """
    Return the scene of a job.

    :param asked: what the job was asked to show
    :param take: another take of the same input looks different
    """
    pictures = {name: file.picture for name, file in asked.files.items()}
    image = pictures.get("image")
    if asked.command is ANIMATE and image:
        return Moving(image, asked.prompt, take)
    opening = image if asked.command is CREATE else None
    return Waves(asked.prompt, asked.message, opening, pictures.get("message"), take)


@dataclass(frozen=True)
class Waves:
    """
    A sky, a light in it and waves before it; one turn of everything is one film.

    :param prompt: decides colours and movement
    :param message: a text between the waves, empty for none
    :param opening: a picture that is the first frame, and dissolves
    :param hidden: a picture that shimmers through
    :param take: another take looks different
    """

    prompt: str
    message: str = ""
    opening: bytes | None = None
    hidden: bytes | None = None
    take: int = 0

    @property
    def seed(self) -> bytes:
        """The prompt, the message and the take."""
        return _seed(f"{self.prompt}\n{self.message}", self.take)

    def frames(self, count: int) -> Iterator[Image.Image]:
        """Draw that many frames."""
        sea = _Sea(random.Random(self.seed), self.message)
        opening = _filling(self.opening, _SIZE) if self.opening else None
        hidden = _filling(self.hidden, _SIZE) if self.hidden else None
        if hidden:
            hidden = ImageOps.autocontrast(hidden.convert("L"), cutoff=1).convert("RGB")
        for number in range(count):
            turn = number / count
            frame = sea.frame(turn)
            if hidden:
                frame = _shimmering(frame, hidden, turn)
            if opening and turn < 1 / 2:
                frame = Image.blend(opening, frame, 2 * turn)
            yield frame


@dataclass(frozen=True)
class Moving:
    """
    A picture under a camera that pans and zooms slowly.

    :param picture: an encoded image
    :param prompt: decides where the camera goes
    :param take: in another take it goes elsewhere
    """

    picture: bytes
    prompt: str = ""
    take: int = 0

    @property
    def seed(self) -> bytes:
        """The prompt and the take."""
        return _seed(self.prompt, self.take)

    def frames(self, count: int) -> Iterator[Image.Image]:
        """Draw that many frames."""
        picture = _filling(self.picture, _COPY)
        angle = random.Random(self.seed).uniform(0, 2 * math.pi)
        for number in range(count):
            way = number / count - 1 / 2
            zoom = 1 - 0.2 * (way + 1 / 2)
            wide, high = WIDTH * zoom, HEIGHT * zoom
            left = (_COPY[0] - wide) / 2 + 0.9 * (_COPY[0] - WIDTH) * way * math.cos(angle)
            top = (_COPY[1] - high) / 2 + 0.9 * (_COPY[1] - HEIGHT) * way * math.sin(angle)
            box = (left, top, left + wide, top + high)
            yield picture.transform(_SIZE, Image.Transform.EXTENT, box, Image.Resampling.BILINEAR)


class SmallCopy(NamedTuple):
    """
    A copy to film.

    :param type: the original's media type
    :param jpeg: the copy
    """

    type: str
    jpeg: bytes


def small_copy(file: IO[bytes]) -> SmallCopy | None:
    """Return a copy of an image that is cheap to keep; None for what cannot be read as one."""
    try:
        with Image.open(file) as image:
            media_type = image.get_format_mimetype() or ""
            # A JPEG is decoded at a fraction of its size straight away.
            image.draft("RGB", _COPY)
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    target = io.BytesIO()
    ImageOps.fit(upright, _COPY).save(target, "JPEG", quality=85)
    return SmallCopy(media_type, target.getvalue())


class _Sea:
    def __init__(self, chance: random.Random, message: str) -> None:
        hue = chance.random()
        self._sky = _gradient(_colour(hue, 0.75, 0.22), _colour(hue + 0.09, 0.65, 0.75))
        self._light = _glow(_colour(hue + 0.16, 0.45, 1.0))
        self._light_at = chance.uniform(0.15, 0.85) * WIDTH
        self._waves = [
            _Wave(
                chance,
                HEIGHT * (0.62 + 0.085 * row),
                _colour(hue + 0.03 + 0.02 * row, 0.7, 0.62 - 0.1 * row),
            )
            for row in range(_ROWS)
        ]
        self._text = lettered(message, *_SIZE) if message else None

    def frame(self, turn: float) -> Image.Image:
        """Draw one frame; ``turn`` is the part of the film that has passed, 0 to 1."""
        frame = self._sky.copy()
        sway = math.sin(2 * math.pi * turn)
        frame.paste(
            self._light,
            (int(self._light_at + 40 * sway) - 160, int(30 - 20 * turn)),
            self._light,
        )
        for wave in self._waves[:2]:
            wave.draw(frame, turn)
        if self._text:
            frame.paste(self._text, (0, int(-20 + 6 * math.cos(2 * math.pi * turn))), self._text)
        for wave in self._waves[2:]:
            wave.draw(frame, turn)
        return frame


class _Wave:
    def __init__(self, chance: random.Random, height: float, colour: tuple[int, int, int]) -> None:
        self._height = height
        self._colour = colour
        # Whole numbers of crests and turns, so that the film's end meets its beginning.
        self._swells = [
            (
                chance.uniform(4, 12),
                chance.randint(1, 3),
                chance.choice((-1, 1)) * chance.randint(1, 2),
                chance.random(),
            )
            for _ in range(3)
        ]

    def draw(self, frame: Image.Image, turn: float) -> None:
        line = [(x, self._height + self._rise(x / WIDTH, turn)) for x in range(0, WIDTH + 8, 8)]
        ImageDraw.Draw(frame).polygon([*line, (WIDTH, HEIGHT), (0, HEIGHT)], fill=self._colour)

    def _rise(self, x: float, turn: float) -> float:
        return sum(
            size * math.sin(2 * math.pi * (crests * x + turns * turn + start))
            for size, crests, turns, start in self._swells
        )


def _gradient(top: tuple[int, int, int], bottom: tuple[int, int, int]) -> Image.Image:
    ramp = Image.linear_gradient("L").resize((WIDTH, HEIGHT))
    return Image.composite(Image.new("RGB", ramp.size, bottom), Image.new("RGB", ramp.size, top), ramp)


def _glow(colour: tuple[int, int, int]) -> Image.Image:
    halo = Image.radial_gradient("L").resize((320, 320)).point(lambda far: max(0, 235 - 2 * far))
    glow = Image.new("RGBA", halo.size, colour)
    glow.putalpha(halo)
    return glow


def _colour(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    red, green, blue = hsv_to_rgb(hue % 1, saturation, max(0.0, min(1.0, value)))
    return int(255 * red), int(255 * green), int(255 * blue)


def _seed(text: str, take: int) -> bytes:
    # Chance seeded by bytes, unlike by hash(), is the same in every process.
    return (f"{text}\n{take}" if take else text).encode("utf-8", "surrogatepass")


def _filling(picture: bytes, size: tuple[int, int]) -> Image.Image:
    with Image.open(io.BytesIO(picture)) as image:
        return ImageOps.fit(image.convert("RGB"), size)


def _shimmering(frame: Image.Image, hidden: Image.Image, turn: float) -> Image.Image:
    # Its light and dark become the sea's, and it sways and fades as a thing under water does.
    swaying = ImageChops.offset(hidden, round(6 * math.sin(4 * math.pi * turn)), 0)
    return Image.blend(frame, ImageChops.overlay(frame, swaying), 0.6 + 0.3 * math.sin(2 * math.pi * turn))
