"""Pictures: every common format and mode comes out upright and right, everything else is a PictureError."""

from __future__ import annotations

import io
import os
import random
import re
import struct
import time
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pam_core.errors import PictureError
from pam_core.media.images import MAX_PIXELS, as_rgb, read_picture

ORIENTATION = 0x0112
CORNERS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "black": (0, 0, 0)}


def four_corners(width: int = 48, height: int = 32) -> np.ndarray:
    """Red, green on top; blue, black below."""
    picture = np.zeros((height, width, 3), np.uint8)
    middle_y, middle_x = height // 2, width // 2
    for index, colour in enumerate(CORNERS.values()):
        top, left = (index // 2) * middle_y, (index % 2) * middle_x
        picture[top : top + middle_y, left : left + middle_x] = colour
    return picture


def encoded(image: Image.Image | np.ndarray, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def put(folder: Path, data: bytes, name: str = "picture") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def read(folder: Path, image: Image.Image | np.ndarray, kind: str, **options: Any) -> np.ndarray:
    picture = read_picture(put(folder, encoded(image, kind, **options)))
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    assert picture.shape[2] == 3
    assert picture.flags.c_contiguous
    assert picture.flags.writeable
    return picture


# What the camera stored, by EXIF orientation, of a scene that is upright.
STORED = {
    1: lambda scene: scene,
    2: lambda scene: scene[:, ::-1],
    3: lambda scene: scene[::-1, ::-1],
    4: lambda scene: scene[::-1],
    5: lambda scene: scene.transpose(1, 0, 2),
    6: lambda scene: np.rot90(scene, 1),
    7: lambda scene: scene[::-1, ::-1].transpose(1, 0, 2),
    8: lambda scene: np.rot90(scene, -1),
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, kind: str) -> None:
    scene = four_corners()
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored = np.ascontiguousarray(STORED[orientation](scene))
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    picture = read(tmp_path, stored, kind, exif=exif, **options)
    assert picture.shape == scene.shape
    assert np.abs(picture.astype(int) - scene).max() <= 3


@pytest.mark.parametrize("orientation", [0, 9, 300])
def test_a_meaningless_orientation_is_ignored(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    assert np.array_equal(read(tmp_path, four_corners(), "PNG", exif=exif), four_corners())


def damaged_exif() -> bytes:
    """Orientation 6, then an entry whose type does not go with its tag: Pillow reads it and fails to rewrite it."""
    entries = struct.pack("<HHIHH", ORIENTATION, 3, 1, 6, 0) + struct.pack("<HHII", 0x010E, 5, 1, 38)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + struct.pack("<I", 0) + struct.pack("<II", 1, 2)


def test_a_good_picture_with_damaged_exif_is_read_or_refused_in_words(tmp_path: Path) -> None:
    path = put(tmp_path, encoded(four_corners(), "JPEG", exif=damaged_exif()))
    try:
        assert read_picture(path).shape in {(32, 48, 3), (48, 32, 3)}
    except PictureError as error:
        assert str(path) in str(error)


GREY16 = np.array([[0, 257, 32896], [65535, 1000, 40000]], np.uint16)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_and_not_clipped(tmp_path: Path, kind: str) -> None:
    picture = read(tmp_path, GREY16, kind)
    assert np.array_equal(picture[..., 0], np.rint(GREY16 / 257))
    assert (picture == picture[..., :1]).all()


def test_a_dark_16_bit_picture_is_not_stretched(tmp_path: Path) -> None:
    assert read(tmp_path, np.full((4, 4), 514, np.uint16), "PNG").max() == 2


def test_big_endian_16_bit_tiff(tmp_path: Path) -> None:
    data = struct.pack(">2sHI", b"MM", 42, 14) + struct.pack(">3H", 0, 32896, 65535)
    tags = [(256, 3, 3), (257, 3, 1), (258, 3, 16), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1), (278, 3, 1)]
    tags.append((279, 4, 6))
    data += struct.pack(">H", len(tags))
    for tag, kind, value in tags:
        data += struct.pack(">HHI", tag, kind, 1) + (
            struct.pack(">HH", value, 0) if kind == 3 else struct.pack(">I", value)
        )
    picture = read_picture(put(tmp_path, data + struct.pack(">I", 0)))
    assert picture[..., 0].tolist() == [[0, 128, 255]]


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([-1000.0, 0.0, 1000.0], [0, 128, 255]),
        ([0.25, 0.25, 0.25], [0, 0, 0]),
        ([1e-30, 2e-30, 3e-30], [0, 128, 255]),
    ],
)
def test_float_tiff_is_stretched_to_what_it_holds(tmp_path: Path, values: list[float], wanted: list[int]) -> None:
    picture = read(tmp_path, np.array([values], np.float32), "TIFF")
    assert np.abs(picture[0, :, 0].astype(int) - wanted).max() <= 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("hole", [np.nan, np.inf, -np.inf])
def test_float_tiff_with_holes_still_shows_the_rest(tmp_path: Path, hole: float) -> None:
    """Depth maps have them where nothing was measured."""
    picture = read(tmp_path, np.array([[hole, 1.0, 2.0, 3.0]], np.float32), "TIFF")
    assert np.abs(picture[0, 1:, 0].astype(int) - [0, 128, 255]).max() <= 1


@pytest.mark.filterwarnings("error")
def test_float_tiff_of_holes_only_is_a_picture(tmp_path: Path) -> None:
    assert read(tmp_path, np.full((2, 2), np.nan, np.float32), "TIFF").shape == (2, 2, 3)


def test_32_bit_integer_tiff_is_stretched_to_what_it_holds(tmp_path: Path) -> None:
    picture = read(tmp_path, np.array([[-(2**20), 0, 2**20]], np.int32), "TIFF")
    assert picture[0, :, 0].tolist() == [0, 128, 255]


def test_32_bit_integer_tiff_of_small_numbers_is_not_black(tmp_path: Path) -> None:
    """A map of distances in millimetres: "others are stretched to what they hold"."""
    assert read(tmp_path, np.array([[0, 500, 1000]], np.int32), "TIFF")[0, :, 0].max() > 200


def test_cmyk_jpeg(tmp_path: Path) -> None:
    cmyk = Image.fromarray(four_corners()).convert("CMYK")
    picture = read(tmp_path, cmyk, "JPEG", quality=100)
    assert np.abs(picture.astype(int) - four_corners())[4:12, 4:20].max() <= 12


def test_palette_png(tmp_path: Path) -> None:
    palette = Image.fromarray(four_corners()).convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    assert np.array_equal(read(tmp_path, palette, "PNG"), four_corners())


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_the_transparent_colour_of_a_palette_becomes_white(tmp_path: Path, kind: str) -> None:
    palette = Image.fromarray(four_corners()).convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    through = palette.getpixel((0, 0))
    picture = read(tmp_path, palette, kind, transparency=through)
    wanted = four_corners()
    wanted[:16, :24] = 255
    assert np.array_equal(picture, wanted)


def test_a_palette_with_an_alpha_each_is_laid_over_white(tmp_path: Path) -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((1, 0), 1)
    picture = read(tmp_path, palette, "PNG", transparency=bytes([128, 0]))
    assert np.abs(picture.astype(int) - [[[255, 127, 127], [255, 255, 255]]]).max() <= 1


def test_rgb_png_with_one_transparent_colour(tmp_path: Path) -> None:
    picture = read(tmp_path, four_corners(), "PNG", transparency=(255, 0, 0))
    wanted = four_corners()
    wanted[:16, :24] = 255
    assert np.array_equal(picture, wanted)


@pytest.mark.parametrize("alpha", [0, 1, 128, 254, 255])
def test_rgba_and_la_are_laid_over_white(tmp_path: Path, alpha: int) -> None:
    over = np.rint(100 * alpha / 255 + 255 * (1 - alpha / 255))
    for values in ((100, 100, 100, alpha), (100, alpha)):
        pixels = np.full((3, 3, len(values)), values, np.uint8)
        image = Image.fromarray(pixels, "RGBA") if len(values) == 4 else Image.fromarray(pixels, "LA")
        picture = read(tmp_path, image, "PNG")
        assert np.abs(picture - over).max() <= 1


def test_1_bit(tmp_path: Path) -> None:
    checks = np.indices((5, 9)).sum(axis=0) % 2 == 1
    picture = read(tmp_path, Image.fromarray(checks), "PNG")
    assert np.array_equal(picture, np.repeat(checks[..., None] * np.uint8(255), 3, axis=2))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_an_animation_is_taken(tmp_path: Path, kind: str) -> None:
    frames = [Image.new("RGB", (16, 12), colour) for colour in ("red", "blue", "green")]
    picture = read(tmp_path, frames[0], kind, save_all=True, append_images=frames[1:])
    assert picture.shape == (12, 16, 3)
    assert np.abs(picture.astype(int) - (255, 0, 0)).max() <= 3


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_one_pixel(tmp_path: Path, kind: str) -> None:
    picture = read(tmp_path, Image.new("RGB", (1, 1), (200, 200, 200)), kind)
    assert picture.shape == (1, 1, 3)
    assert np.abs(picture.astype(int) - 200).max() <= 3


@pytest.mark.parametrize(
    "mode",
    ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB", "I", "F", "I;16"],
)
def test_every_mode_of_pillow_becomes_rgb(mode: str) -> None:
    picture = as_rgb(Image.new(mode, (4, 3)))
    assert (picture.shape, picture.dtype) == ((3, 4, 3), np.uint8)


def test_the_name_says_nothing_of_the_format(tmp_path: Path) -> None:
    path = put(tmp_path, encoded(four_corners(), "PNG"), "wrong.jpg")
    assert np.array_equal(read_picture(str(path)), four_corners())


def refused(path: Path) -> str:
    with pytest.raises(PictureError) as caught:
        read_picture(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("share", [0.001, 0.02, 0.2, 0.5, 0.8, 0.95])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
def test_a_picture_cut_short_is_refused(tmp_path: Path, kind: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    data = encoded(noise, kind)
    message = refused(put(tmp_path, data[: max(1, int(len(data) * share))]))
    assert re.search("damaged or cut short|not a picture", message)


@pytest.mark.parametrize(
    ("name", "data"),
    [("empty.png", b""), ("notes.jpg", b"Dear diary,\n" * 50), ("zeros.png", bytes(500)), ("page.jpg", b"<html>")],
)
def test_a_file_that_is_no_picture_is_refused(tmp_path: Path, name: str, data: bytes) -> None:
    assert "wanted a JPEG, PNG" in refused(put(tmp_path, data, name))


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    assert "a folder" in refused(tmp_path)
    assert "no such file" in refused(tmp_path / "none.jpg")
    assert "no such file" in refused(put(tmp_path, b"") / "below a file.jpg")


@pytest.mark.parametrize("name", ["x" * 300 + ".jpg", "zero\0byte.jpg", "/".join(["deep"] * 2000)])
def test_an_impossible_path_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(PictureError):
        read_picture(tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    path = put(folder, encoded(four_corners(), "PNG"))
    path.chmod(0)
    assert "ermission" in refused(path)
    folder.chmod(0)
    try:
        assert "ermission" in refused(path)
    finally:
        folder.chmod(0o700)


def claimed(width: int, height: int) -> bytes:
    """A PNG whose header promises a size that its few bytes do not hold."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(999)))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [11_000, 13_000, 20_000, 100_000, 2**31 - 1])
def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path, side: int) -> None:
    path = put(tmp_path, claimed(side, side))
    tracemalloc.start()
    started = time.perf_counter()
    try:
        message = refused(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - started < 2
    assert peak < 20 * 2**20
    if side * side > MAX_PIXELS:
        assert "pixels" in message


def resident() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)


@pytest.mark.parametrize("side", [20_000, 100_000])
def test_a_bomb_takes_no_memory_behind_pythons_back(tmp_path: Path, side: int) -> None:
    before = resident()
    refused(put(tmp_path, claimed(side, side)))
    assert resident() - before < 100 * 2**20


def test_the_largest_picture_is_allowed(tmp_path: Path) -> None:
    """Just below the limit: refused for being cut short, not for its size."""
    assert "damaged or cut short" in refused(put(tmp_path, claimed(MAX_PIXELS // 10_000, 10_000)))


def exif_of_a_camera() -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION], exif[0x010E], exif[0x011A], exif[0x0132] = 6, "a description", 72.0, "2020:01:01 00:00:00"
    exif.get_ifd(0x8825)[2] = (1.0, 2.0, 3.0)
    return exif


SEEDS = {
    "JPEG": encoded(four_corners(), "JPEG", exif=exif_of_a_camera()),
    "progressive JPEG": encoded(four_corners(), "JPEG", progressive=True, optimize=True),
    "PNG": encoded(four_corners(), "PNG"),
    "palette PNG": encoded(
        Image.fromarray(four_corners()).convert("P"), "PNG", transparency=1, exif=exif_of_a_camera()
    ),
    "WEBP": encoded(four_corners(), "WEBP", exif=exif_of_a_camera()),
    "GIF": encoded(four_corners(), "GIF"),
}


def is_picture_or_refused(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    try:
        picture = read_picture(path)
    except PictureError:
        return
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    assert picture.shape[2] == 3


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "picture"


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", SEEDS)
@settings(max_examples=150)
@given(data=st.data())
def test_damaged_bytes_are_a_picture_or_a_picture_error(scratch: Path, kind: str, data: st.DataObject) -> None:
    damaged = bytearray(SEEDS[kind])
    changes = st.lists(st.tuples(st.integers(0, len(damaged) - 1), st.integers(0, 255)), min_size=1, max_size=8)
    for at, value in data.draw(changes):
        damaged[at] = value
    is_picture_or_refused(scratch, bytes(damaged[: data.draw(st.integers(1, len(damaged)))]))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["JPEG", "palette PNG", "WEBP"])
def test_damaged_exif_is_a_picture_or_a_picture_error(scratch: Path, kind: str) -> None:
    """Many seeded tries where it hurts most: Pillow's EXIF code raises errors of every type."""
    seed = SEEDS[kind]
    start = max(seed.find(b"II*\0"), seed.find(b"MM\0*"))
    rng = random.Random(6)
    for _ in range(1500):
        damaged = bytearray(seed)
        for _ in range(rng.choice([1, 1, 2, 3])):
            at = start + rng.randrange(min(230, len(seed) - start))
            damaged[at] = rng.choice([0, 1, 2, 255, rng.randrange(256)])
        if kind == "palette PNG":
            damaged = bytearray(_with_valid_checksums(bytes(damaged)))
        is_picture_or_refused(scratch, bytes(damaged))


def _with_valid_checksums(png: bytes) -> bytes:
    out, at = png[:8], 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        body = png[at + 4 : at + 8 + length]
        out += png[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + length
    return out
