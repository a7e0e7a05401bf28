"""The sink `overlay`: each picture with its masks, outlines, labels and prompts drawn on it, as a PNG."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFont

from pam_core.errors import DatasetError
from pam_core.types import Picture, Prompt, Region
from pam_plugins.datasets.contracts import Result
from pam_plugins.files import UniqueNames, make_folder, write_whole
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


class OverlayFormat:
    """`overlay:folder`."""

    name = "overlay"
    description = "a PNG for each picture with masks, labels and prompts drawn on it: overlay:FOLDER"

    def open(self, address: str) -> OverlaySink:
        return OverlaySink(Path(address))


class OverlaySink:
    """Writes `<stem>.overlay.png` for each picture but those that failed."""

    def __init__(self, folder: Path) -> None:
        self.folder = make_folder(folder)
        self._names = UniqueNames()

    def write(self, results: Sequence[Result]) -> None:
        import cv2

        for result in results:
            name = self._names.name(result.perception.image, ".overlay.png")
            picture = result.picture() if result.perception.error is None else None
            if picture is None or not picture.size:
                continue
            scene = cv2.cvtColor(draw(picture, result.perception.regions), cv2.COLOR_RGB2BGR)
            encoded, png = cv2.imencode(".png", scene)
            if not encoded:
                raise DatasetError(f"Cannot write {self.folder / name}: the picture could not be encoded as PNG.")
            write_whole(self.folder / name, png.tobytes())

    def close(self) -> None:
        """Every file is complete already."""


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
    coloured = [(region, colour) for region, colour in coloured if region.mask.area]
    for region, colour in sorted(coloured, key=lambda item: -item[0].mask.area):
        paint = {"color": sv.Color.from_hex(colour), "color_lookup": sv.ColorLookup.INDEX}
        one = sv.Detections(xyxy=np.array([region.box], dtype=np.float32), mask=region.mask.array[None])
        scene = sv.MaskAnnotator(opacity=OPACITY, **paint).annotate(scene, one)
        scene = sv.PolygonAnnotator(thickness=line, **paint).annotate(scene, one)
    for region, colour in coloured:
        if region.prompt is not None:
            scene = _draw_prompt(scene, region.prompt, colour, line)
    return _draw_labels(cv2.cvtColor(scene, cv2.COLOR_BGR2RGB), coloured)


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


def _draw_labels(picture: Picture, coloured: Sequence[tuple[Region, str]]) -> Picture:
    """Labels at the top of their regions, moved apart by supervision where they would overlap."""
    import supervision as sv

    captions = [(region, colour, caption_of(region)) for region, colour in coloured]
    captions = [each for each in captions if each[2]]
    if not captions:
        return picture
    height, width = picture.shape[:2]
    size = font_size(width, height)
    texts = [text for _, _, text in captions]
    font_path = cjk_font() if any(map(is_cjk, texts)) else None
    annotator = sv.RichLabelAnnotator(
        color=sv.ColorPalette.from_hex([colour for _, colour, _ in captions]),
        text_color=sv.Color.from_hex(palette.INK),
        color_lookup=sv.ColorLookup.INDEX,
        font_path=font_path,
        font_size=size,
        text_padding=max(2, round(size * 0.35)),
        border_radius=max(2, size // 5),
        text_position=sv.Position.TOP_CENTER,
        smart_position=True,
        max_line_length=max(1, min(MAX_LABEL, round(1.6 * width / size))),
    )
    boxes = np.array([region.box for region, _, _ in captions], dtype=np.float32)
    scene = annotator.annotate(Image.fromarray(picture), sv.Detections(xyxy=boxes), texts)
    return np.array(scene)


def caption_of(region: Region) -> str:
    """Label and score; empty where there is no label, or no font for it."""
    label = one_line(region.label or "")[:MAX_LABEL]
    if not label or (is_cjk(label) and cjk_font() is None):
        return ""
    score = region.scores.get("label")
    return label if score is None else f"{label} {score:.0%}"


def is_cjk(text: str) -> bool:
    """Whether a text needs a font with Chinese characters."""
    return any(ord(character) >= 0x2E80 for character in text)


def one_line(text: str) -> str:
    """A text as it can be drawn: without line breaks and characters that are not printable."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


@lru_cache(maxsize=1)
def cjk_font() -> str | None:
    """The path of the first font here with Chinese characters; Pillow searches the system's folders."""

    def find(name: str) -> str | None:
        try:
            return str(ImageFont.truetype(name, 12).path)
        except OSError:
            return None

    return next(filter(None, map(find, CJK_FONTS)), None)
