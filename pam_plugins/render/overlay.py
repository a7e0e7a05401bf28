"""The exporter `overlay`: each picture with its masks, outlines, labels and prompts drawn on it, as a PNG."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pam_core.masks import BoolArray, Box
from pam_core.types import Perception, Picture, Prompt, Region
from pam_plugins.files import UniqueNames, write_whole
from pam_plugins.render import palette

OPACITY = 0.38
MAX_LABEL = 48
CJK_FONTS = (
    "NotoSansCJK-Regular.ttc",
    "NotoSansCJKsc-Regular.otf",
    "NotoSansSC-Regular.otf",
    "SourceHanSansSC-Regular.otf",
    "wqy-microhei.ttc",
    "wqy-zenhei.ttc",
    "DroidSansFallbackFull.ttf",
    "PingFang.ttc",
    "Hiragino Sans GB.ttc",
    "STHeiti Medium.ttc",
    "msyh.ttc",
    "simhei.ttf",
)


class OverlayExporter:
    """Writes `<stem>.overlay.png` for each picture."""

    name = "overlay"
    description = "a PNG for each picture with masks, labels and prompts drawn on it"

    def open(self, folder: Path) -> OverlayWriter:
        return OverlayWriter(folder)


class OverlayWriter:
    """Draws and writes one picture at a time; a picture that failed leaves no file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names = UniqueNames()

    def write(self, perception: Perception, picture: Picture | None) -> None:
        import cv2

        name = self._names.name(perception.image, ".overlay.png")
        if perception.error is not None or picture is None or not picture.size:
            return
        done, png = cv2.imencode(".png", cv2.cvtColor(draw(picture, perception.regions), cv2.COLOR_RGB2BGR))
        if not done:
            raise OSError(f"Cannot write {self.folder / name}: the picture could not be encoded as PNG.")
        write_whole(self.folder / name, png.tobytes())

    def close(self) -> None:
        """Every file is whole already."""


def draw(picture: Picture, regions: Sequence[Region]) -> Picture:
    """A copy of `picture` with `regions` drawn on it.

    Masks are drawn one by one, the largest first, so that memory does not grow with their number.
    """
    import cv2
    import supervision as sv

    height, width = picture.shape[:2]
    scene = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2BGR)  # supervision draws in BGR
    line = line_thickness(width, height)
    coloured = [(region, palette.colour_of(region, index)) for index, region in enumerate(regions)]
    seen = [(region, colour) for region, colour in coloured if region.mask.area]
    anchors: dict[int, Anchor] = {}
    for region, colour in sorted(seen, key=lambda item: -item[0].mask.area):
        mask = region.mask.array
        anchors[id(region)] = _anchor(mask, region.box)
        paint = {"color": sv.Color.from_hex(colour), "color_lookup": sv.ColorLookup.INDEX}
        one = sv.Detections(xyxy=np.array([region.box], dtype=np.float32), mask=mask[None])
        scene = sv.MaskAnnotator(opacity=OPACITY, **paint).annotate(scene, one)
        scene = sv.PolygonAnnotator(thickness=line, **paint).annotate(scene, one)
    for region, colour in seen:
        if region.prompt is not None:
            scene = _draw_prompt(scene, region.prompt, colour, line)
    return _draw_labels(cv2.cvtColor(scene, cv2.COLOR_BGR2RGB), seen, anchors, line)


def line_thickness(width: int, height: int) -> int:
    """supervision's thickness, thinner on thumbnails and thicker beyond the sizes it knows."""
    import supervision as sv

    side = min(width, height)
    optimal = sv.calculate_optimal_line_thickness((width, height))
    return 1 if side < 240 else int(max(optimal, round(optimal * side / 2160)))


def font_size(width: int, height: int) -> int:
    """Pixels per em, in step with supervision's text scale and never too small to read."""
    import supervision as sv

    return max(11, round(26 * sv.calculate_optimal_text_scale((width, height))))


def _draw_prompt(scene: Any, prompt: Prompt, colour: str, line: int) -> Any:
    import supervision as sv

    if prompt.box is not None:
        box = sv.Detections(xyxy=np.array([prompt.box], dtype=np.float32))
        corners = sv.BoxCornerAnnotator(
            color=sv.Color.from_hex(colour),
            thickness=line + 1,
            corner_length=max(3, int(min(box.box_area[0] ** 0.5 / 5, 12 * line))),
            color_lookup=sv.ColorLookup.INDEX,
        )
        scene = corners.annotate(scene, box)
    for wanted, dot in ((1, palette.FOREGROUND), (0, palette.BACKGROUND)):
        points = [point for point, label in zip(prompt.points, prompt.labels, strict=True) if label == wanted]
        if points:
            dots = sv.DotAnnotator(
                color=sv.Color.from_hex(dot),
                radius=3 * line,
                color_lookup=sv.ColorLookup.INDEX,
                outline_thickness=max(1, line // 2),
                outline_color=sv.Color.WHITE,
            )
            at = np.array([(x - 0.5, y - 0.5, x + 0.5, y + 0.5) for x, y in points], dtype=np.float32)
            scene = dots.annotate(scene, sv.Detections(xyxy=at))
    return scene


def _draw_labels(
    picture: Picture, coloured: Sequence[tuple[Region, str]], anchors: dict[int, Anchor], line: int
) -> Picture:
    """Labels where they cover no other label; where there is no such place, the label is left out."""
    import supervision as sv
    from PIL import Image, ImageFont

    height, width = picture.shape[:2]
    scene = Image.fromarray(picture)  # what this annotator draws on; anything else it would convert each time
    size = font_size(width, height)
    padding = max(2, round(size * 0.35))
    taken: list[Box] = []
    for region, colour in sorted(coloured, key=lambda item: item[0].mask.area):  # the small have the least choice
        caption = caption_of(region)
        if caption is None:
            continue
        text, score, cjk = caption
        font_path = cjk_font() if cjk else None
        font = ImageFont.truetype(font_path, size) if font_path else ImageFont.load_default(size)
        fitted = _fit(text, score, font.getlength, width - 2 * padding - 2)
        if fitted is None:
            continue
        left, top, right, bottom = font.getbbox(fitted)
        label_size = (math.ceil(right - left) + 2 * padding, math.ceil(bottom - top) + 2 * padding)
        place = _place(anchors[id(region)], label_size, (width, height), taken, line)
        if place is None:
            continue
        taken.append((place[0], place[1], place[0] + label_size[0], place[1] + label_size[1]))
        x, y = place
        anchor = sv.Detections(
            xyxy=np.array([[x, y + label_size[1], x + label_size[0], y + label_size[1]]], dtype=np.float32)
        )
        annotator = sv.RichLabelAnnotator(
            color=sv.Color.from_hex(colour),
            text_color=sv.Color.from_hex(palette.INK),
            font_path=font_path,
            font_size=size,
            text_padding=padding,
            text_position=sv.Position.TOP_LEFT,
            color_lookup=sv.ColorLookup.INDEX,
            border_radius=max(2, size // 5),
        )
        scene = annotator.annotate(scene, anchor, [fitted])
    return np.array(scene)


def caption_of(region: Region) -> tuple[str, str, bool] | None:
    """Label, score and whether it takes a CJK font; None where there is nothing that can be written."""
    label = one_line(region.label or "")
    if not label:
        return None
    cjk = any(ord(character) >= 0x2E80 for character in label)
    if cjk and cjk_font() is None:
        return None
    score = region.scores.get("label")
    return label[:MAX_LABEL], "" if score is None else f" {score:.0%}", cjk


def one_line(text: str) -> str:
    """A text as it can be drawn: without line breaks, and without what no font has a picture of."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _fit(text: str, score: str, measure: Callable[[str], float], limit: int) -> str | None:
    """The text cut to fit into `limit` pixels with its score; None where not even three letters would."""
    if measure(text + score) <= limit:
        return text + score
    for length in range(len(text) - 1, 2, -1):
        cut = text[:length].rstrip() + "…"
        if measure(cut + score) <= limit:
            return cut + score
    return None


class Anchor(NamedTuple):
    """Where a label can hold on to a mask: its box, and the columns of its highest and its lowest pixels."""

    box: Box
    top: float
    bottom: float


def _anchor(mask: BoolArray, box: Box) -> Anchor:
    _, y1, _, y2 = (int(side) for side in box)
    top, bottom = (float(np.flatnonzero(mask[row]).mean()) for row in (y1, y2 - 1))
    return Anchor(box, top, bottom)


def _place(
    anchor: Anchor, label: tuple[int, int], frame: tuple[int, int], taken: Sequence[Box], gap: int
) -> tuple[int, int] | None:
    """The top-left corner of a label: above the region, else inside its top, below it, or in its middle."""
    x1, y1, x2, y2 = anchor.box
    wide, high = label
    top, bottom = anchor.top - wide / 2, anchor.bottom - wide / 2
    middle = (x1 + (x2 - x1 - wide) / 2, y1 + (y2 - y1 - high) / 2)
    inside = [(top, y1 + gap), middle, (bottom, y2 - high - gap)]
    wanted = [(top, y1 - high - gap)] if y1 >= high + gap else []
    below = [(bottom, y2 + gap)] if y2 + high + gap <= frame[1] else []
    roomy = (x2 - x1) > 2 * wide and (y2 - y1) > 4 * high
    order = [*wanted, *inside, *below] if roomy else [*wanted, *below, *inside]
    for x, y in order:
        left = int(min(max(x, 0), max(frame[0] - wide - 1, 0)))
        upper = int(min(max(y, 0), max(frame[1] - high - 1, 0)))
        if not any(left < b[2] and b[0] < left + wide and upper < b[3] and b[1] < upper + high for b in taken):
            return left, upper
    return None


@lru_cache(maxsize=1)
def cjk_font() -> str | None:
    """The first font found that has Chinese characters; Pillow looks where the system keeps its fonts."""
    from PIL import ImageFont

    def find(name: str) -> str | None:
        try:
            return str(ImageFont.truetype(name, 12).path)
        except OSError:
            return None

    return next(filter(None, map(find, CJK_FONTS)), None)
