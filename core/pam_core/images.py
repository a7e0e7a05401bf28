"""Reading pictures: any common format and mode in, an upright RGB array out, or an error that says what to do."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 120_000_000
"""Larger pictures are refused before they are decoded: 120 megapixels take 360 MB as RGB."""


class PictureError(ValueError):
    """A picture that cannot be read: says what was got, what was wanted and what to do."""


def read_picture(path: str | Path) -> npt.NDArray[np.uint8]:
    """Read a picture file as uint8 RGB (height, width, 3), its EXIF orientation applied.

    Palette, grey, CMYK, 16-bit and float pictures are converted; transparency is laid over white; of an animation
    the first frame is taken. Raises PictureError.
    """
    path = Path(path)
    if not path.is_file():
        what = "a folder" if path.is_dir() else "no such file"
        raise PictureError(f"{path}: {what}; wanted a picture file such as a JPEG or PNG.")
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
                return as_rgb(ImageOps.exif_transpose(image))
    except PictureError:
        raise
    except Image.DecompressionBombError as error:
        raise PictureError(f"{path}: far too many pixels ({error}); wanted at most {MAX_PIXELS}.") from error
    except UnidentifiedImageError as error:
        raise PictureError(f"{path}: not a picture in a format that Pillow reads; wanted a JPEG, PNG, ...") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # Pillow's decoders raise all of these
        raise PictureError(f"{path}: damaged or cut short ({error}); get the file again.") from error


def as_rgb(image: Image.Image) -> npt.NDArray[np.uint8]:
    """A Pillow image of any mode as uint8 RGB (height, width, 3)."""
    if image.mode.startswith("I") or image.mode == "F":
        return _from_deep(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return np.array(image.convert("RGB"))


def _from_deep(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Grey pictures of more than 8 bits. 16-bit ones keep their scale; others are stretched to what they hold."""
    grey = np.asarray(image).astype(np.float32)
    low, high = (0.0, 65535.0) if image.mode.startswith("I;16") else (float(grey.min()), float(grey.max()))
    if image.mode == "I" and low >= 0 and high <= 65535:  # how Pillow opens 16-bit PNGs in older releases
        low, high = 0.0, 65535.0
    scaled = (grey - low) * (255.0 / (high - low if high > low else 1.0))
    return np.repeat(np.clip(np.rint(scaled), 0, 255).astype(np.uint8)[..., None], 3, axis=2)
