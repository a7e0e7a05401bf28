"""Chinese sentences made of a label and measured motion."""

from __future__ import annotations

from pam_plugins.models.lite.captions_zh import PLACES, Chinese
from pam_plugins.models.lite.facts import Facts, third
from pam_plugins.models.lite.motion import Motion
from pam_plugins.models.lite.motion_captions_en import rounded
from pam_plugins.models.lite.naming import Label

_DIRECTIONS = {
    "left": "左",
    "right": "右",
    "up": "上",
    "down": "下",
    "upper left": "左上方",
    "upper right": "右上方",
    "lower left": "左下方",
    "lower right": "右下方",
}
_EDGES = {"left": "左侧", "right": "右侧", "top": "上方", "bottom": "下方"}


def describe(chinese: Chinese, label: Label, facts: Facts, motion: Motion) -> str:
    """One sentence: the label with its colours (nothing else of `facts`), then the motion."""
    return f"{'，'.join([chinese.subject(label, facts), *phrases(motion)])}。"


def phrases(motion: Motion) -> list[str]:
    """Verb phrases of a motion in the order of events."""
    if motion.start is None or motion.end is None:
        return ["没有出现"]
    parts = []
    if motion.found:
        parts.append(f"从画面{_EDGES[motion.enters]}进入" if motion.enters else "出现在画面中")
    parts.append(_path(motion))
    if motion.growth is not None:
        parts.append(
            f"在画面中的面积增大到约{motion.growth:.1f}倍"
            if motion.growth > 1
            else f"在画面中的面积缩小到原来的约{motion.growth:.0%}"
        )
    if motion.away:
        parts.append(f"中间约有{rounded(motion.away)}秒看不见")
    if motion.lost:
        parts.append(f"最后从画面{_EDGES[motion.leaves]}离开" if motion.leaves else "最后看不见了")
    return parts


def _path(motion: Motion) -> str:
    assert motion.end is not None
    if not motion.moves:
        return f"停留在画面{PLACES[third(motion.end[1]), third(motion.end[0])]}"
    speed = f"以每秒约{rounded(motion.speed)}像素的速度" if motion.speed else ""
    if motion.direction is None:
        return f"{speed}移动，没有固定的方向"
    return f"{speed}向{_DIRECTIONS[motion.direction]}移动"
