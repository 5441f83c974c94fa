"""A message as a transparent picture, in the letters Pillow's own font has."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

_LARGE, _SMALL = 110, 56
# No font has a glyph for it, so it looks as every missing one does.
_NO_CHARACTER = "\U0010ffff"


def lettered(message: str, width: int, height: int) -> Image.Image:
    """Return the message in the middle of a picture of this size, in one line or in two."""
    shown = "".join(_drawable(character) for character in message).strip() or "…"
    size = _fitting_size(shown, width)
    if size < _SMALL:
        middle = len(shown) // 2
        spaces = [place for place, character in enumerate(shown) if character == " "]
        cut = min(spaces, key=lambda place: abs(place - middle), default=middle)
        shown = f"{shown[:cut].rstrip()}\n{shown[cut:].lstrip()}"
        size = min(_LARGE * 2 // 3, *(_fitting_size(line, width) for line in shown.split("\n")))
    layer = Image.new("RGBA", (width, height))
    draw = ImageDraw.Draw(layer)
    font = ImageFont.load_default(size)
    x, y = width / 2, height / 2
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


def _fitting_size(line: str, width: int) -> int:
    wide = ImageFont.load_default(100).getlength(line)
    return int(min(_LARGE, 100 * 0.88 * width / max(wide, 1)))


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
