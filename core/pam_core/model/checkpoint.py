"""Checkpoints of PAM: the released layout, read from and written to folders of safetensors.

A folder holds config.json, generation_config.json, the weights in one file or in shards, and a tokenizer beside them
or in `tokenizer/`. Released repositories keep that folder inside another of the same name. SAM 2's weights are among
the others, or in a file of their own. Nothing here reaches for a network: `hub` does, when asked.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from pam_core.config import ConfigError, PamConfig, PerceiverConfig, VisionConfig
from pam_core.model.location import INDEX, SINGLE, CheckpointError, find, fingerprint, first_line
from pam_core.model.pam import PamModel
from pam_core.model.weights import WeightFiles, empty_weights, read_weights

PREFIXES = (
    ("model.vision_tower.sam2_model_predictor.", "vision.sam."),
    ("model.vision_resampler.", "perceiver."),
    ("model.mm_projector_img.", "image_projector."),
    ("model.mm_projector_semT.", "semantic_projector."),
    ("model.image_newline", "image_newline"),
    ("model.semT_newline", "semantic_newline"),
    ("model.frame_newline", "frame_newline"),
    ("lm_head.", "language.lm_head."),
    ("model.", "language.model."),
)
"""How released keys begin, and where in `PamModel` they belong; the first that fits holds."""

VISION_PREFIX = PREFIXES[0][0]
HEAD = "lm_head.weight"
SAM2_FILE = "sam2.safetensors"


def released_key(name: str) -> str:
    """The key in a released checkpoint of a parameter of `PamModel`."""
    return next(released + name.removeprefix(ours) for released, ours in PREFIXES if name.startswith(ours))


def load(
    source: str | Path,
    *,
    subfolder: str | None,
    revision: str | None,
    sam2: str | Path | None,
    device: torch.device,
    dtype: torch.dtype | None,
) -> PamModel:
    """See `PamModel.from_pretrained`. Without `dtype`, the weights stay as they are in the file."""
    folder = find(source, subfolder, revision)
    with _within_memory(folder, device), WeightFiles.in_folder(folder) as weights:
        config = read_config(folder, weights)
        tokenizer = read_tokenizer(folder)
        generation = read_json(folder / "generation_config.json", missing={})
        separate = _separate_vision(folder, weights, sam2)
        model = build(folder, config)
        _fill(model, folder, weights, separate, device, dtype)
        model.place(device, dtype or model.dtype).eval()
    model.tokenizer = tokenizer
    model.generation = generation
    model.revision = fingerprint(folder)
    return model


def build(folder: Path, config: PamConfig) -> PamModel:
    """The model of a folder's config.json, without memory for its weights. Raises CheckpointError."""
    try:
        with empty_weights():
            return PamModel(config)
    except MemoryError:
        raise
    except Exception as error:  # SAM 2 and transformers say in many ways that sizes do not go together
        raise CheckpointError(
            f"{folder}: no model can be built of the sizes in its config.json ({first_line(error)}); "
            "take it from the release."
        ) from error


@contextmanager
def _within_memory(folder: Path, device: torch.device) -> Iterator[None]:
    """Say in one sentence that a checkpoint does not fit. Each library has its own words for that."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        said = str(error).lower()
        short = isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate" in said or "not enough" in said
        if isinstance(error, CheckpointError) or not short:
            raise
        size = sum(file.stat().st_size for file in folder.glob("*.safetensors")) / 1e9
        raise CheckpointError(
            f"{folder}: does not fit into the memory of {device} ({first_line(error)}); "
            f"its weights are {size:.1f} GB. Close other programs, take a smaller model or another --device."
        ) from error


def read_config(folder: Path, weights: WeightFiles) -> PamConfig:
    """config.json, with what it takes for granted read off the folder: SAM 2's sizes from a SAM 2 configuration
    beside it, the perceiver's from its weights.
    """
    vision = None
    for file in sorted(folder.glob("sam2*.yaml")):
        try:
            vision = VisionConfig.from_sam2_yaml(yaml.safe_load(file.read_text(encoding="utf-8")))
        except (yaml.YAMLError, ConfigError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{file}: {first_line(error)}; take it from the release.") from error
    try:
        return PamConfig.from_json(read_json(folder / "config.json"), vision, _perceiver_of(weights))
    except ConfigError as error:
        raise CheckpointError(f"{folder / 'config.json'}: {error}") from error


def _perceiver_of(weights: WeightFiles) -> PerceiverConfig | None:
    """What a perceiver's weights say of its sizes; its heads they do not."""
    prefix = "model.vision_resampler."
    keys = set(weights.keys())
    if not {f"{prefix}sem_tokens.weight", f"{prefix}layers.0.mlp.layers.0.weight"} <= keys:
        return None
    if len(shape := weights.shape(f"{prefix}sem_tokens.weight")) != 2:
        raise CheckpointError(
            f"{prefix}sem_tokens.weight is {list(shape)}; wanted tokens by dimensions. Fetch it again."
        )
    depth = len({key.split(".")[3] for key in keys if key.startswith(f"{prefix}layers.")})
    mlp_dim = weights.shape(f"{prefix}layers.0.mlp.layers.0.weight")[0]
    return PerceiverConfig(dim=shape[1], depth=depth, mlp_dim=mlp_dim, semantic_tokens=shape[0])


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint's folder; no network is asked. Raises CheckpointError."""
    home = next((home for home in (folder, folder / "tokenizer") if (home / "tokenizer_config.json").is_file()), None)
    if home is None or not any((home / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise CheckpointError(
            f"{folder}: holds no tokenizer (tokenizer_config.json with tokenizer.json or vocab.json); "
            "copy it there from the release, or fetch the checkpoint again (`pam download`)."
        )
    try:
        return AutoTokenizer.from_pretrained(home, local_files_only=True, trust_remote_code=False)
    except MemoryError:
        raise
    except Exception as error:  # transformers raises errors of many types for damaged files
        raise CheckpointError(
            f"{home}: its tokenizer cannot be read ({first_line(error)}); copy it from the release."
        ) from error


def _separate_vision(folder: Path, weights: WeightFiles, sam2: str | Path | None) -> dict[str, Tensor]:
    """SAM 2's weights by released key where the checkpoint holds none, or where a file of them was named."""
    if sam2 is None and any(key.startswith(VISION_PREFIX) for key in weights.keys()):  # noqa: SIM118
        return {}
    file = Path(sam2) if sam2 is not None else folder / SAM2_FILE
    if not file.is_file():
        raise CheckpointError(
            f"{folder}: holds no weights of SAM 2 (model.vision_tower.*), and there is no {file}; wanted either. "
            "`pam convert` makes one checkpoint of PAM's and SAM 2's files."
        )
    return as_released_vision(read_weights(file))


def as_released_vision(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """SAM 2's weights under the keys that a checkpoint of PAM has them by."""
    return {VISION_PREFIX + key.removeprefix(VISION_PREFIX): tensor for key, tensor in weights.items()}


def _fill(
    model: PamModel,
    folder: Path,
    weights: WeightFiles,
    separate: Mapping[str, Tensor],
    device: torch.device,
    dtype: torch.dtype | None,
) -> None:
    """Give every parameter and every saved buffer its tensor. Each is checked before it is read."""
    tied = model.config.language.tied
    there = set(weights.keys())
    if separate:
        there = {key for key in there if not key.startswith(VISION_PREFIX)}
    wanted = {released_key(name): name for name in model.state_dict()}
    if tied or HEAD not in there:  # the official code ties the head wherever the configuration says so
        wanted.pop(HEAD, None)
    shapes: dict[str, tuple[int, ...]] = {key: weights.shape(key) for key in there}
    shapes.update((key, tuple(tensor.shape)) for key, tensor in separate.items())
    expected = {key: tuple(model.state_dict()[name].shape) for key, name in wanted.items()}
    check_keys(folder, shapes, expected)
    for key, name in wanted.items():
        tensor = separate[key] if key in separate else weights[key]
        if not tensor.is_floating_point():
            raise CheckpointError(f"{folder}: {key} is {tensor.dtype}; wanted floating-point numbers, as released.")
        _assign(model, name, tensor.to(device, dtype or tensor.dtype, copy=True))
    if HEAD not in wanted:
        model.language.lm_head.weight = model.language.model.embed_tokens.weight


def check_keys(folder: Path, got: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]]) -> None:
    """Raise CheckpointError unless both have the same keys with the same shapes; a head may be left over."""
    missing = sorted(set(wanted) - set(got))
    extra = sorted(set(got) - set(wanted) - {HEAD})
    if missing or extra:
        said = [f"{what} {_some(keys)}" for what, keys in (("lacks", missing), ("also holds", extra)) if keys]
        raise CheckpointError(f"{folder}: {' and '.join(said)}; its config.json and its weights do not go together.")
    for key, shape in wanted.items():
        if got[key] != shape:
            raise CheckpointError(
                f"{folder}: {key} is {list(got[key])}; wanted {list(shape)} by config.json. "
                "They do not go together: take both from the same release."
            )


def _some(keys: list[str], most: int = 3) -> str:
    return ", ".join(keys[:most]) + (f" and {len(keys) - most} more" if len(keys) > most else "")


def _assign(model: nn.Module, name: str, tensor: Tensor) -> None:
    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    old = getattr(module, leaf)
    setattr(module, leaf, nn.Parameter(tensor, old.requires_grad) if isinstance(old, nn.Parameter) else tensor)


def save(model: PamModel, folder: Path, max_shard_size: str) -> None:
    """See `PamModel.save_pretrained`. The tied head is left out, as it is the embedding."""
    named = {released_key(name): tensor.contiguous() for name, tensor in model.state_dict().items()}
    if model.config.language.tied:
        named.pop(HEAD)
    write(
        folder,
        named,
        {"config.json": model.config.to_json(), "generation_config.json": model.generation},
        max_shard_size,
    )
    if model.tokenizer is not None:
        model.tokenizer.save_pretrained(folder)


def write(folder: Path, weights: Mapping[str, Tensor], files: Mapping[str, Any], max_shard_size: str) -> None:
    """Write safetensors and JSON files into a folder, weights first. Raises CheckpointError."""
    from huggingface_hub import save_torch_state_dict

    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_torch_state_dict(dict(weights), folder, max_shard_size=max_shard_size)
        for name, content in files.items():
            (folder / name).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    except OSError as error:
        raise CheckpointError(
            f"{folder}: cannot be written ({error.strerror or error}); choose another folder."
        ) from error


def convert(
    source: Path, sam2: Path | None, out: Path, *, trust_pickle: bool, progress: Callable[[str], None]
) -> None:
    """Make one folder of safetensors out of PAM's files and, where it is given, SAM 2's. Raises CheckpointError."""
    folder = find(source)
    safe = (folder / INDEX).is_file() or (folder / SINGLE).is_file()
    files = sorted(folder.glob("*.safetensors" if safe else "*.bin"))
    weights: dict[str, Tensor] = {}
    for file in files:
        progress(f"reading {file.name}")
        weights.update(read_weights(file, trust_pickle=trust_pickle))
    if not weights:
        raise CheckpointError(f"{folder}: holds no weights; wanted *.safetensors or pytorch_model*.bin.")
    if sam2 is not None:
        progress(f"reading {sam2.name}")
        weights = {key: tensor for key, tensor in weights.items() if not key.startswith(VISION_PREFIX)}
        weights.update(as_released_vision(read_weights(sam2, trust_pickle=trust_pickle)))
    tokenizer = read_tokenizer(folder)
    files_to_write = {"config.json": read_json(folder / "config.json")}
    generation = read_json(folder / "generation_config.json", missing={})
    progress(f"writing {out}")
    write(out, weights, {**files_to_write, "generation_config.json": generation}, "5GB")
    tokenizer.save_pretrained(out)
    for file in folder.glob("sam2*.yaml"):
        (out / file.name).write_bytes(file.read_bytes())
    with WeightFiles.in_folder(out) as written:
        progress("checking")
        config = read_config(out, written)
        model = build(out, config)
        names = {released_key(name): tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        if config.language.tied:
            names.pop(HEAD)
        check_keys(out, {key: written.shape(key) for key in written.keys()}, names)  # noqa: SIM118


def read_json(file: Path, missing: dict[str, Any] | None = None) -> dict[str, Any]:
    """A JSON object from a file; `missing` where there is no such file. Raises CheckpointError."""
    if missing is not None and not file.is_file():
        return missing
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: cannot be read ({first_line(error)}); fetch it again.") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{file}: holds {type(data).__name__}; wanted a JSON object.")
    return data
