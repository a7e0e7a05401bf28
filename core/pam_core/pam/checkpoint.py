"""Checkpoints of PAM: the released layout, read from and written to folders of safetensors.

A folder holds config.json, generation_config.json, the weights in one file or in shards, and a tokenizer beside them
or in `tokenizer/`. Released repositories keep that folder inside another of the same name. SAM 2's weights are among
the others, or in a file of their own. Nothing here uses the network; `hub` does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml
from huggingface_hub import save_torch_state_dict
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging

from pam_core.errors import CheckpointError, ConfigError
from pam_core.pam.config import PamConfig, PerceiverConfig, VisionConfig
from pam_core.pam.location import INDEX, SINGLE, find, fingerprint, first_line
from pam_core.pam.model import PamModel
from pam_core.pam.weights import WeightFiles, empty_weights, read_weights

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
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
SAM2_FILE = "sam2.safetensors"
SIZES = ("vision_config", "perceiver_config")
"""What a released config.json does not say; `convert` adds it."""

Value = TypeVar("Value")


def released_key(name: str) -> str:
    """The key in a released checkpoint of a parameter of `PamModel`."""
    return next(released + name.removeprefix(ours) for released, ours in PREFIXES if name.startswith(ours))


def load_pretrained(
    source: str | Path,
    *,
    subfolder: str | None = None,
    revision: str | None = None,
    sam2: str | Path | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
) -> PamModel:
    """Load a checkpoint: a local folder, or a repository that `pam download` fetched. Raises CheckpointError.

    `sam2` is a separate file of SAM 2 weights, for checkpoints that hold none. Without `dtype`, the weights stay as
    they are in the file.
    """
    device = torch.device(device)
    folder = find(source, subfolder, revision)
    with _within_memory(folder, device), WeightFiles.in_folder(folder) as weights:
        shapes = weights.shapes()
        vision = separate_vision(folder, shapes, sam2)
        model, homes = empty_model(folder, with_vision(shapes, {key: tuple(t.shape) for key, t in vision.items()}))
        tokenizer = read_tokenizer(folder)  # transformers reads config.json too, and says less about what is wrong
        generation = read_json(folder / "generation_config.json", missing={})
        for key, name in homes.items():
            tensor = vision[key] if key in vision else weights[key]
            if not tensor.is_floating_point():
                raise CheckpointError(
                    f"{folder}: {key} is {tensor.dtype}; wanted floating-point numbers, as released."
                )
            _assign(model, name, tensor.to(device, dtype or tensor.dtype, copy=True))
        if HEAD not in homes:
            model.language.lm_head.weight = model.language.model.embed_tokens.weight
        model.place(device, dtype or model.dtype).eval()
    model.tokenizer = tokenizer
    model.generation = generation
    model.revision = fingerprint(folder)
    return model


def empty_model(folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> tuple[PamModel, dict[str, str]]:
    """The model that a folder's config.json and the shapes of its weights describe, without memory for them; and
    the name in it of each key that it needs. Raises CheckpointError where they do not go together.
    """
    config = read_config(folder, shapes)
    model = build(folder, config)
    parts = {released_key(name): (name, tuple(tensor.shape)) for name, tensor in model.state_dict().items()}
    if config.language.tied or HEAD not in shapes:  # the official code ties the head wherever it is told to
        parts.pop(HEAD, None)
    check_keys(folder, shapes, {key: shape for key, (_, shape) in parts.items()})
    return model, {key: name for key, (name, _) in parts.items()}


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


def read_config(folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> PamConfig:
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
        return PamConfig.from_json(read_json(folder / "config.json"), vision, _perceiver_of(shapes))
    except ConfigError as error:
        raise CheckpointError(f"{folder / 'config.json'}: {error}") from error


def _perceiver_of(shapes: Mapping[str, tuple[int, ...]]) -> PerceiverConfig | None:
    """What a perceiver's weights say of its sizes; its heads they do not."""
    prefix = "model.vision_resampler."
    tokens, mlp = f"{prefix}sem_tokens.weight", f"{prefix}layers.0.mlp.layers.0.weight"
    if not {tokens, mlp} <= shapes.keys():
        return None
    for key in (tokens, mlp):
        if len(shapes[key]) != 2:
            raise CheckpointError(f"{key} is {list(shapes[key])}; wanted two dimensions, as released.")
    depth = len({key.split(".")[3] for key in shapes if key.startswith(f"{prefix}layers.")})
    count, dim = shapes[tokens]
    return PerceiverConfig(dim=dim, depth=depth, mlp_dim=shapes[mlp][0], semantic_tokens=count)


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint's folder; without network. Raises CheckpointError."""
    home = next((home for home in (folder, folder / "tokenizer") if (home / "tokenizer_config.json").is_file()), None)
    if home is None or not any((home / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise CheckpointError(
            f"{folder}: holds no tokenizer (tokenizer_config.json with tokenizer.json or vocab.json); "
            "copy it there from the release, or fetch the checkpoint again (`pam download`)."
        )
    said = logging.get_verbosity()
    logging.set_verbosity_error()  # it reads config.json too, and warns that it does not know the model
    try:
        return AutoTokenizer.from_pretrained(home, local_files_only=True, trust_remote_code=False)
    except MemoryError:
        raise
    except Exception as error:  # transformers raises errors of many types for damaged files
        raise CheckpointError(
            f"{home}: its tokenizer cannot be read ({first_line(error)}); copy it from the release."
        ) from error
    finally:
        logging.set_verbosity(said)


def separate_vision(
    folder: Path, keys: Iterable[str], sam2: str | Path | None, *, trust_pickle: bool = False
) -> dict[str, Tensor]:
    """SAM 2's weights by released key where the checkpoint holds none, or where a file of them was named."""
    if sam2 is None and any(key.startswith(VISION_PREFIX) for key in keys):
        return {}
    file = Path(sam2) if sam2 is not None else folder / SAM2_FILE
    if not file.is_file():
        raise CheckpointError(
            f"{folder}: holds no weights of SAM 2 (model.vision_tower.*), and there is no {file}; wanted either. "
            "`pam convert` makes one checkpoint of PAM's and SAM 2's files."
        )
    weights = read_weights(file, trust_pickle=trust_pickle)
    return {VISION_PREFIX + key.removeprefix(VISION_PREFIX): tensor for key, tensor in weights.items()}


def with_vision(values: Mapping[str, Value], vision: Mapping[str, Value]) -> dict[str, Value]:
    """What is known by key, with what is known of a separate SAM 2 instead of the one among them."""
    kept = {key: value for key, value in values.items() if not (vision and key.startswith(VISION_PREFIX))}
    return {**kept, **vision}


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


def save_pretrained(model: PamModel, folder: str | Path, max_shard_size: str = "5GB") -> None:
    """Write a folder in the released layout, as safetensors. Raises CheckpointError."""
    weights = {released_key(name): tensor for name, tensor in model.state_dict().items()}
    write(Path(folder), weights, model.tokenizer, model.config.to_json(), model.generation, max_shard_size)


def write(
    folder: Path,
    weights: Mapping[str, Tensor],
    tokenizer: PreTrainedTokenizerBase | None,
    config: Mapping[str, Any],
    generation: Mapping[str, Any],
    max_shard_size: str = "5GB",
) -> None:
    """Write a checkpoint. A head that is the embedding is left out. Raises CheckpointError.

    What makes a folder a checkpoint, config.json, goes first and is written last.
    """
    tied = HEAD in weights and weights[HEAD].data_ptr() == weights[EMBEDDING].data_ptr()
    kept = {key: tensor for key, tensor in weights.items() if not (tied and key == HEAD)}
    home, unfinished = folder / "config.json", folder / "config.json.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        home.unlink(missing_ok=True)
        save_torch_state_dict(kept, folder, max_shard_size=max_shard_size)
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)
        for file, content in ((folder / "generation_config.json", generation), (unfinished, config)):
            file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        unfinished.replace(home)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: cannot be written ({first_line(error)}); choose another folder.") from error


def convert(
    source: Path, sam2: Path | None, out: Path, *, trust_pickle: bool, progress: Callable[[str], None]
) -> None:
    """Make one folder of safetensors out of PAM's files and, where it is given, SAM 2's. Raises CheckpointError.

    Nothing is written before all is known to go together.
    """
    folder = find(source)
    if (out / "config.json").exists():
        raise CheckpointError(f"{out}: already holds a checkpoint; name another folder, or delete it first.")
    with _within_memory(folder, torch.device("cpu")):
        progress(f"reading {folder}")
        weights = _read_all(folder, trust_pickle)
        weights = with_vision(weights, separate_vision(folder, weights, sam2, trust_pickle=trust_pickle))
        model, homes = empty_model(folder, {key: tuple(tensor.shape) for key, tensor in weights.items()})
        tokenizer = read_tokenizer(folder)
        generation = read_json(folder / "generation_config.json", missing={})
        progress(f"writing {out}")
        sizes = {key: value for key, value in model.config.to_json().items() if key in SIZES}
        config = {**read_json(folder / "config.json"), **sizes}
        write(out, {key: weights[key] for key in homes}, tokenizer, config, generation)


def _read_all(folder: Path, trust_pickle: bool) -> dict[str, Tensor]:
    """A folder's weights; those of pickles where it holds no safetensors."""
    pickles = sorted(folder.glob("pytorch_model*.bin"))
    if pickles and not any((folder / name).is_file() for name in (SINGLE, INDEX)):
        found = [read_weights(file, trust_pickle=trust_pickle) for file in pickles]
        return {key: tensor for each in found for key, tensor in each.items()}
    with WeightFiles.in_folder(folder) as weights:
        return {key: weights[key] for key in weights.shapes()}


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
