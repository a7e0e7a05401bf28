"""Reading pictures: any common format and mode in, an upright RGB array out, or an error that says what to do."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from pam_core.errors import PictureError

MAX_PIXELS = 120_000_000
"""Larger pictures are refused before they are decoded: 120 megapixels take 360 MB as RGB."""
ORIENTATION = 0x0112
SIDEWAYS = frozenset({5, 6, 7, 8})
"""The EXIF tag of a picture's orientation, and the values that swap width and height."""

UNREADABLE = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})
"""Formats that Pillow recognises by suffix and cannot decode by itself."""


def pictures_in(folder: Path) -> list[Path]:
    """The files of a folder, not of those in it, that are pictures by their suffix, in order of name."""
    formats = Image.registered_extensions()
    known = {suffix for suffix, kind in formats.items() if kind in Image.OPEN and kind not in UNREADABLE}
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in known and path.is_file())


def read_picture(path: str | Path) -> npt.NDArray[np.uint8]:
    """Read a picture file as uint8 RGB (height, width, 3), its EXIF orientation applied.

    Palette, grey, CMYK, 16-bit and float pictures are converted; transparency is laid over white; of an animation
    the first frame is taken. Raises PictureError.
    """
    path = Path(path)
    try:
        if not path.is_file():
            what = "a folder" if path.is_dir() else "no such file"
            raise PictureError(f"{path}: {what}; wanted a picture file such as a JPEG or PNG.")
    except OSError as error:  # a name too long, or a folder without permission
        raise PictureError(f"{path}: cannot be read ({error.strerror}); wanted a picture file.") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise PictureError(
                        f"{path}: {width}x{height} is {width * height / 1e6:.0f} megapixels; wanted at most "
                        f"{MAX_PIXELS / 1e6:.0f}. Scale it down or cut it into tiles first."
                    )
                return as_rgb(_upright(image))
    except PictureError:
        raise
    except Image.DecompressionBombError as error:
        raise PictureError(f"{path}: far too many pixels ({error}); wanted at most {MAX_PIXELS}.") from error
    except UnidentifiedImageError as error:
        raise PictureError(f"{path}: not a picture in a format that Pillow reads; wanted a JPEG, PNG, ...") from error
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise errors of every type for damaged files
        raise PictureError(f"{path}: damaged or cut short ({error}); get the file again.") from error


def picture_size(path: str | Path) -> tuple[int, int]:
    """Width and height of a picture file as `read_picture` would return it, read from its header.

    Raises PictureError.
    """
    try:
        with Image.open(path) as image:
            return (image.height, image.width) if _sideways(image) else image.size
    except Exception as error:  # Pillow's readers raise errors of every type for damaged files
        raise PictureError(
            f"{path}: cannot be read ({error}); wanted a picture file such as a JPEG or PNG."
        ) from error


def _sideways(image: Image.Image) -> bool:
    try:
        return image.getexif().get(ORIENTATION) in SIDEWAYS
    except Exception:  # damaged EXIF counts for nothing, as in `_upright`
        return False


def _upright(image: Image.Image) -> Image.Image:
    """The image with its EXIF orientation applied; as it is where its EXIF is damaged."""
    image.load()  # what is wrong with the pixels is not to be taken for damaged EXIF
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # rewriting the tags may raise anything; the pixels are good
        return image


def as_rgb(image: Image.Image) -> npt.NDArray[np.uint8]:
    """A Pillow image of any mode as uint8 RGB (height, width, 3)."""
    if image.mode.startswith("I") or image.mode == "F":
        return _from_deep(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return np.array(image.convert("RGB"))


def _from_deep(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Grey pictures of more than 8 bits. 16-bit ones keep their scale; others are stretched to what they hold.

    What is not a number is black, as is minus infinity; infinity is white.
    """
    grey = np.asarray(image).astype(np.float64)
    known = grey[np.isfinite(grey)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):  # older Pillow: "I"
        low, high = 0.0, 65535.0
    grey = np.nan_to_num(grey, nan=low, posinf=high, neginf=low)
    scaled = (grey - low) * (255.0 / (high - low if high > low else 1.0))
    return np.repeat(np.clip(np.rint(scaled), 0, 255).astype(np.uint8)[..., None], 3, axis=2)
