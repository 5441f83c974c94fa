"""The film an emulated job ends in: its message over moving ground, as a real H.264 MP4."""

from __future__ import annotations

import io
import math
import random
import struct
import tempfile
import unicodedata
from colorsys import hsv_to_rgb
from functools import lru_cache
from pathlib import Path

import av
from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 640, 360
_RATE = 24
_SECONDS = 3.0
# Every film is filled up to a size known beforehand, so a job can tell it before anybody wants the film.
# The encoder's ceiling keeps below it.
_BYTES_PER_SECOND = 80_000
_CEILING = {"maxrate": "480k", "bufsize": "240k"}
_ROWS = 5
_BOX_HEADER = 8
_LARGE, _SMALL = 110, 56
# No font has a glyph for it, so it looks as every missing one does.
_NO_CHARACTER = "\U0010ffff"


def film_size(message: str, prompt: str, seconds: float = _SECONDS) -> int:
    """Return how many bytes :func:`make_film` will give, without making the film."""
    return int(_BYTES_PER_SECOND * max(1.0, seconds)) + _random(message, prompt).randrange(4096)


@lru_cache(maxsize=16)
def make_film(message: str, prompt: str, seconds: float = _SECONDS) -> bytes:
    """
    Make a film that shows the message; the same input gives the same film.

    :param message: the text to show
    :param prompt: decides colours and movement
    :param seconds: how long it plays
    """
    size = film_size(message, prompt, seconds)
    scene = _Scene(message, prompt)
    count = max(1, round(seconds * _RATE))
    # A real file, because FFmpeg reads it again to bring the index to its front.
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "film.mp4")
        with av.open(str(target), "w", options={"movflags": "faststart"}) as container:
            stream = container.add_stream("libx264", rate=_RATE)
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            stream.options = {"preset": "veryfast", "crf": "21", "threads": "1", **_CEILING}
            for number in range(count):
                frame = av.VideoFrame.from_image(scene.frame(number / count))  # type: ignore[no-untyped-call]
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


class _Scene:
    """A sky, a light in it, waves before it and the message above them; one turn of everything is one film."""

    def __init__(self, message: str, prompt: str) -> None:
        chance = _random(message, prompt)
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
        self._text = _text(message)

    def frame(self, turn: float) -> Image.Image:
        """
        Draw one frame.

        :param turn: 0 to 1, the part of the film that has passed
        """
        frame = self._sky.copy()
        sway = math.sin(2 * math.pi * turn)
        frame.paste(
            self._light,
            (int(self._light_at + 40 * sway) - 160, int(30 - 20 * turn)),
            self._light,
        )
        for wave in self._waves[:2]:
            wave.draw(frame, turn)
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


def _text(message: str) -> Image.Image:
    shown = "".join(_drawable(character) for character in message).strip() or "…"
    size = _fitting_size(shown)
    if size < _SMALL:
        middle = len(shown) // 2
        spaces = [place for place, character in enumerate(shown) if character == " "]
        cut = min(spaces, key=lambda place: abs(place - middle), default=middle)
        shown = f"{shown[:cut].rstrip()}\n{shown[cut:].lstrip()}"
        size = min(_LARGE * 2 // 3, *(_fitting_size(line) for line in shown.split("\n")))
    layer = Image.new("RGBA", (WIDTH, HEIGHT))
    draw = ImageDraw.Draw(layer)
    font = ImageFont.load_default(size)
    x, y = WIDTH / 2, HEIGHT / 2
    draw.text(
        (x + size / 30, y + size / 22),
        shown,
        (0, 0, 0, 110),
        font,
        anchor="mm",
        align="center",
    )
    draw.text(
        (x, y),
        shown,
        "white",
        font,
        anchor="mm",
        align="center",
        stroke_width=max(1, size // 50),
    )
    return layer


def _fitting_size(line: str) -> int:
    wide = ImageFont.load_default(100).getlength(line)
    return int(min(_LARGE, 100 * 0.88 * WIDTH / max(wide, 1)))


@lru_cache(maxsize=1024)
def _drawable(character: str) -> str:
    """Return what Pillow's own font has for a character: itself, its plain letters, or a star."""
    for candidate in (character, *_plain(character)):
        if candidate and all(sign == " " or _shape(sign) != _shape(_NO_CHARACTER) for sign in candidate):
            return candidate
    # Marks and joiners only change the sign before them, which stands already.
    return "" if unicodedata.category(character) in ("Mn", "Me", "Cf") else "*"


def _plain(character: str) -> tuple[str, str]:
    if character.isspace():
        return " ", ""
    folded = unicodedata.normalize("NFKD", character.casefold() if character == "ß" else character)
    return folded, "".join(sign for sign in folded if not unicodedata.combining(sign))


def _shape(sign: str) -> bytes:
    return bytes(ImageFont.load_default(24).getmask(sign))


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


def _random(message: str, prompt: str) -> random.Random:
    # Seeded by a text, which unlike hash() is the same in every process.
    return random.Random(f"{prompt}\n{message}".encode("utf-8", "surrogatepass"))


def _filled(film: bytes, size: int) -> bytes:
    """Fill an MP4 up to a size with a ``free`` box, which every player skips."""
    rest = size - len(film)
    if rest < _BOX_HEADER:
        raise RuntimeError(f"the film has {len(film)} bytes, more than the {size} announced")
    return film + struct.pack(">I4s", rest, b"free") + bytes(rest - _BOX_HEADER)
