"""The emulator's film: real, repeatable, of a size known beforehand, whatever the message."""

from __future__ import annotations

import io

import av
import pytest
from PIL import Image, ImageStat

from airflow_provider_pika.emulator.film import film_size, make_film, make_still
from airflow_provider_pika.emulator.scenes import HEIGHT, WIDTH, Waves


def test_it_is_an_h264_film_that_a_browser_can_start_early() -> None:
    film = make_film(Waves("waves of gold", "HELLO THERE"))
    with av.open(io.BytesIO(film), "r") as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height, stream.frames) == (WIDTH, HEIGHT, 72)
        assert stream.average_rate == 24
    assert film.index(b"moov") < film.index(b"mdat")


def test_the_same_input_gives_the_same_film_and_another_prompt_another_one() -> None:
    make_film.cache_clear()
    first = make_film(Waves("x", "A"), 0.2)
    make_film.cache_clear()
    assert make_film(Waves("x", "A"), 0.2) == first
    assert make_film(Waves("y", "A"), 0.2) != first


@pytest.mark.parametrize("message", ["HI", "Größe 🎬", "W" * 20, "👩‍🚀👩‍🚀", "世界", "  ", "a\nb", "\ud83c"])
def test_every_message_gives_a_film_of_the_size_told_beforehand(message: str) -> None:
    film = make_film(Waves("-camera zoom in", message), 0.2)
    assert len(film) == film_size(Waves("-camera zoom in", message), 0.2)


def test_the_still_shows_something_bright_and_something_dark() -> None:
    still = Image.open(io.BytesIO(make_still(make_film(Waves("night", "HELLO"), 0.5))))
    assert (still.format, still.size) == ("PNG", (WIDTH, HEIGHT))
    darkest, brightest = ImageStat.Stat(still.convert("L")).extrema[0]
    assert brightest - darkest > 150


def test_no_film_outgrows_its_size() -> None:
    for seed in range(3):
        make_film(Waves(f"storm {seed} " * 20, "WAVES AND WAVES"))
