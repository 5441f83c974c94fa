"""The emulator's film: real, repeatable, of a size known beforehand, whatever the message."""

from __future__ import annotations

import io
import itertools

import av
import pytest
from PIL import Image, ImageChops, ImageDraw, ImageStat

from airflow_provider_pika.api.commands import COMMANDS
from airflow_provider_pika.emulator.film import film_size, make_film, make_still
from airflow_provider_pika.emulator.jobs import Submit, Upload
from airflow_provider_pika.emulator.scenes import HEIGHT, WIDTH, Moving, Scene, Waves, scene_of, small_copy


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
        make_film(Waves(f"storm {seed} " * 20, "WAVES AND WAVES"), 1)


def picture(kind: str = "PNG", size: tuple[int, int] = (1600, 900)) -> io.BytesIO:
    """Return a picture that is white on its left and black on its right."""
    image = Image.new("RGB", size)
    ImageDraw.Draw(image).rectangle((0, 0, size[0] // 2, size[1]), fill="white")
    target = io.BytesIO()
    image.save(target, kind)
    target.seek(0)
    return target


def copied(file: io.BytesIO) -> bytes:
    copy = small_copy(file)
    assert copy
    return copy.jpeg


def distance(one: Image.Image, other: Image.Image) -> float:
    return float(ImageStat.Stat(ImageChops.difference(one, other).convert("L")).mean[0])


def brightness_of_halves(image: Image.Image) -> tuple[float, float]:
    grey = image.convert("L")
    halves = grey.crop((0, 0, WIDTH // 2, HEIGHT)), grey.crop((WIDTH // 2, 0, WIDTH, HEIGHT))
    return ImageStat.Stat(halves[0]).mean[0], ImageStat.Stat(halves[1]).mean[0]


def test_a_created_film_begins_with_its_image_and_leaves_it() -> None:
    image = copied(picture())
    first, *_, last = Waves("a bay", opening=image).frames(12)
    shown = Image.open(io.BytesIO(image)).resize((WIDTH, HEIGHT))
    assert distance(first, shown) < 3
    assert distance(last, shown) > 30


def test_an_animated_picture_moves_and_stays_recognizable() -> None:
    frames = list(Moving(copied(picture()), "slow").frames(12))
    assert all(distance(one, other) > 0.1 for one, other in itertools.pairwise(frames))
    left, right = brightness_of_halves(frames[6])
    assert left - right > 150


def test_a_hidden_picture_shimmers_through_the_film_it_is_hidden_in() -> None:
    plain = list(Waves("a bay").frames(12))
    hiding = list(Waves("a bay", hidden=copied(picture())).frames(12))
    contrasts = []
    for without, with_it in zip(plain, hiding, strict=True):
        before, after = brightness_of_halves(without), brightness_of_halves(with_it)
        contrasts.append((after[0] - after[1]) - (before[0] - before[1]))
    assert min(contrasts) > 5
    assert max(contrasts) > 1.5 * min(contrasts)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_a_copy_is_small_and_tells_the_type_of_its_original(kind: str) -> None:
    copy = small_copy(picture(kind, (1200, 1500)))
    assert copy
    assert (copy.type, len(copy.jpeg) < 100_000) == (f"image/{kind.lower()}", True)


@pytest.mark.parametrize("junk", [b"", b"no image", b"\x89PNG picture", picture().getvalue()[:200]])
def test_what_cannot_be_read_as_an_image_has_no_copy(junk: bytes) -> None:
    assert small_copy(io.BytesIO(junk)) is None


IMAGE = {"image": Upload(1, "image/png", copied(picture()))}
HIDDEN = {"message": IMAGE["image"]}
UNREADABLE = {"image": Upload(1, "image/png"), "message": Upload(1, "image/png")}


@pytest.mark.parametrize(
    ("command", "files", "scene"),
    [
        ("encrypt_text", IMAGE, Waves("p", "HI")),
        ("create", {}, Waves("p")),
        ("create", IMAGE, Waves("p", opening=IMAGE["image"].picture)),
        ("animate", IMAGE, Moving(IMAGE["image"].picture or b"", "p")),
        ("encrypt_image", HIDDEN, Waves("p", hidden=IMAGE["image"].picture)),
        ("animate", UNREADABLE, Waves("p")),
        ("encrypt_image", UNREADABLE, Waves("p")),
    ],
)
def test_each_command_has_its_scene_and_another_take_looks_different(
    command: str, files: dict[str, Upload], scene: Scene
) -> None:
    texts = {"prompt": "p"} | ({"message": "HI"} if command == "encrypt_text" else {})
    asked = Submit(COMMANDS[command], texts, files)
    assert scene_of(asked) == scene
    again = scene_of(asked, take=2)
    assert again.seed != scene.seed
    assert distance([*scene.frames(8)][7], [*again.frames(8)][7]) > 1


def test_no_film_of_a_picture_outgrows_its_size() -> None:
    noise = io.BytesIO()
    Image.effect_noise((1200, 900), 200).save(noise, "PNG")
    loud = copied(noise)
    for scene in (Moving(loud), Waves("x", hidden=loud), Waves("x", opening=loud)):
        assert len(make_film(scene, 1)) == film_size(scene, 1)
