"""The sink `html`: one self-contained `index.html` for a whole run, for any browser, without a network.

Pictures go into the page as they come, as JPEG data URLs, their regions as JSON that the page's script reads;
the memory needed does not grow with the run. All words travel as JSON and are shown as text, never as markup.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pam_core.errors import DatasetError
from pam_core.types import Perception, Picture, Region
from pam_plugins.datasets.contracts import Result
from pam_plugins.files import Part, make_folder
from pam_plugins.render import palette
from pam_plugins.render.outlines import outline

MAX_PICTURES = 200
"""Pictures beyond this many are counted, not shown: browsers slow down on pages of hundreds of megabytes."""

MAX_SIDE = 1280
THUMBNAIL_SIDE = 240


class HtmlPageFormat:
    """`html:folder`."""

    name = "html"
    description = "index.html: every picture with its regions to point at and their texts beside it: html:FOLDER"

    def open(self, address: str) -> HtmlPageSink:
        return HtmlPageSink(Path(address) / "index.html")


class HtmlPageSink:
    """Appends each picture to a file beside `path`, which takes the name `path` at `close`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._counts = {"pictures": 0, "shown": 0, "regions": 0, "failed": 0}
        self._languages: dict[str, None] = {}
        head, self._foot = _template()
        make_folder(path.parent)
        self._part = Part(path, resumable=True)
        self._part.write(head)

    def write(self, results: Sequence[Result]) -> None:
        for result in results:
            perception = result.perception
            if self._counts["shown"] < MAX_PICTURES:
                self._part.write(_picture_blocks(perception, result.picture()))
                self._counts["shown"] += 1
                for region in perception.regions:
                    for by_language in region.texts.values():
                        self._languages.update(dict.fromkeys(by_language))
            self._counts["pictures"] += 1
            self._counts["regions"] += len(perception.regions)
            self._counts["failed"] += perception.error is not None

    def close(self) -> None:
        if self._part.closed:
            return
        run = {**self._counts, "languages": list(self._languages), "ink": palette.INK}
        run["prompt"] = {"foreground": palette.FOREGROUND, "background": palette.BACKGROUND}
        self._part.write(_block('id="run"', run) + self._foot)
        self._part.finish()


def _picture_blocks(perception: Perception, picture: Picture | None) -> str:
    """One picture: a small block for the list of pictures, and one that is parsed when it is opened."""
    photo, thumbnail, (width, height) = _jpegs(picture)
    entry = {
        "image": perception.image,
        "thumbnail": thumbnail,
        "regions": len(perception.regions),
        "failed": perception.error is not None,
    }
    record = {
        "image": perception.image,
        "width": perception.width,
        "height": perception.height,
        "model": perception.model.to_json(),
        "seconds": dict(perception.seconds),
        "error": perception.error,
        "photo": photo,
        "canvas": [width, height],
        "regions": [_region_record(region, index, width, height) for index, region in enumerate(perception.regions)],
    }
    return _block("data-entry", entry) + _block("data-picture", record)


def _region_record(region: Region, index: int, width: int, height: int) -> dict[str, Any]:
    drawn = outline(region.mask, width, height) if width and height else None
    return {
        "region": region.to_json(),
        "colour": palette.colour_of(region, index),
        "path": drawn.path if drawn else "",
        "at": [drawn.x, drawn.y] if drawn else None,
    }


def _jpegs(picture: Picture | None) -> tuple[str | None, str | None, tuple[int, int]]:
    """The picture and its thumbnail as data URLs, and the size it is displayed at."""
    if picture is None or not picture.size:
        return None, None, (0, 0)
    import cv2

    bgr = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2BGR)
    photo = _shrunk(bgr, MAX_SIDE)
    thumbnail = _shrunk(photo, THUMBNAIL_SIDE)
    return _data_url(photo, 85), _data_url(thumbnail, 75), (photo.shape[1], photo.shape[0])


def _shrunk(bgr: Any, side: int) -> Any:
    import cv2

    height, width = bgr.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return bgr
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(bgr, size, interpolation=cv2.INTER_AREA)


def _data_url(bgr: Any, quality: int) -> str:
    import cv2

    done, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise DatasetError("Cannot write the page: a picture could not be encoded as JPEG.")
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode("ascii")


def _block(attribute: str, data: Any) -> str:
    """JSON inside a script element that is never run. It has no `<`, so nothing in it can end the element."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    text = text.encode(errors="backslashreplace").decode()  # file names need not be UTF-8
    return f'<script type="application/json" {attribute}>{text}</script>\n'


def _template() -> tuple[str, str]:
    """The page before and after its pictures. Style and script are allowed by their hashes, nothing else."""
    here = Path(__file__).parent
    html, css, words, script = (
        (here / name).read_text(encoding="utf-8").strip()
        for name in ("page.html", "page.css", "page_words.js", "page.js")
    )
    js = f'"use strict";\n(() => {{\n{words}\n{script}\n}})();'
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(css)}'; script-src '{_hash(js)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    head, foot = html.split("<!--pictures-->")
    return head.replace("/*policy*/", policy).replace("/*css*/", css), foot.replace("/*js*/", js)


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
