"""What a Perceive Anything Model is made of: one dataclass a part, read from and written to `config.json`.

The defaults are those of the released PAM-3B. Knows no torch: a configuration can be read without loading
anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, TypeVar, get_origin, get_type_hints

from pam_core.errors import ConfigError

HF_KEYS = {
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "tied": "tie_word_embeddings",
}
"""Fields of `LanguageConfig` that Hugging Face's Qwen2 calls otherwise."""


@dataclass(frozen=True)
class VisionConfig:
    """SAM 2.1 with a Hiera trunk. The defaults are Hiera L, which the released models use.

    `stages` are blocks per stage, `windows` attention windows per stage, `global_blocks` the blocks that attend to
    everything, `background` the side of the coarse position embedding. `dim` is what the mask decoder works in,
    `memory_dim` what memories of frames are kept in.
    """

    embed_dim: int = 144
    heads: int = 2
    stages: tuple[int, ...] = (2, 6, 36, 4)
    global_blocks: tuple[int, ...] = (23, 33, 43)
    background: int = 7
    windows: tuple[int, ...] = (8, 4, 16, 8)
    dim: int = 256
    memory_dim: int = 64
    memory_layers: int = 4
    memory_mlp_dim: int = 2048
    memories: int = 7
    image_size: int = 1024

    @property
    def grid(self) -> int:
        """Cells along a side of the image embedding (stride 16)."""
        return self.image_size // 16

    @classmethod
    def from_sam2_yaml(cls, config: Mapping[str, Any]) -> VisionConfig:
        """The sizes out of one of SAM 2's own configuration files, already parsed. Nothing in it is instantiated."""
        try:
            model = config["model"]
            trunk, memory = model["image_encoder"]["trunk"], model["memory_attention"]
            sizes = {
                "embed_dim": trunk.get("embed_dim", 96),
                "heads": trunk.get("num_heads", 1),
                "stages": trunk.get("stages", (2, 3, 16, 3)),
                "global_blocks": trunk.get("global_att_blocks", (12, 16, 20)),
                "background": trunk.get("window_pos_embed_bkg_spatial_size", (14, 14))[0],
                "windows": trunk.get("window_spec", (8, 4, 14, 7)),
                "dim": model["image_encoder"]["neck"]["d_model"],
                "memory_dim": model["memory_encoder"]["out_dim"],
                "memory_layers": memory["num_layers"],
                "memory_mlp_dim": memory["layer"]["dim_feedforward"],
                "memories": model["num_maskmem"],
                "image_size": model["image_size"],
            }
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise ConfigError(
                f"This is not a SAM 2.1 configuration: {error!r} is missing or of another type."
            ) from error
        return _read(cls, sizes)


SAM2_SIZES = {
    "tiny": VisionConfig(96, 1, (1, 2, 7, 2), (5, 7, 9), 7, (8, 4, 14, 7)),
    "small": VisionConfig(96, 1, (1, 2, 11, 2), (7, 10, 13), 7, (8, 4, 14, 7)),
    "base_plus": VisionConfig(112, 2, (2, 3, 16, 3), (12, 16, 20), 14, (8, 4, 14, 7)),
    "large": VisionConfig(),
}
"""SAM 2.1's published sizes, by the last word of their names ("sam2.1_hiera_large")."""


@dataclass(frozen=True)
class PerceiverConfig:
    """The Semantic Perceiver (arXiv 2506.05302, section 3; the choices are those of its ablations).

    `semantic_tokens` is 0, 4, 16 or 64 in the paper. `image_features` says whether the image embedding is taken
    "after" the mask decoder's two-way transformer (as released) or "before" it; `tokens`, whether the perceiver is
    fed the two "mask" tokens (as released) or "all" of the decoder's output tokens.
    """

    dim: int = 256
    heads: int = 8
    depth: int = 2
    mlp_dim: int = 2048
    semantic_tokens: int = 16
    image_features: str = "after"
    tokens: str = "mask"

    def __post_init__(self) -> None:
        for name, known in (("image_features", ("after", "before")), ("tokens", ("mask", "all"))):
            if getattr(self, name) not in known:
                raise ConfigError(f"Got {name} {getattr(self, name)!r}; wanted {' or '.join(known)}.")


@dataclass(frozen=True)
class LanguageConfig:
    """A Qwen2 language model."""

    hidden_size: int = 2048
    layers: int = 36
    heads: int = 16
    kv_heads: int = 2
    intermediate_size: int = 11008
    vocab_size: int = 151936
    tied: bool = True
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1e6
    max_position_embeddings: int = 32768

    def to_qwen2(self) -> dict[str, Any]:
        """The fields as `Qwen2Config` calls them."""
        return {HF_KEYS.get(name, name): value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class PamConfig:
    """All parts, and what the tokenizer and generation need.

    `model_type` is "qwen2" or "llava_qwen": released files have either, and both mean the same.
    """

    vision: VisionConfig = field(default_factory=VisionConfig)
    perceiver: PerceiverConfig = field(default_factory=PerceiverConfig)
    language: LanguageConfig = field(default_factory=LanguageConfig)
    vision_name: str = "meta/sam2.1_hiera_large"
    model_type: str = "llava_qwen"
    max_length: int = 12288
    bos_token_id: int = 151643
    eos_token_id: int = 151645

    def __post_init__(self) -> None:
        if self.perceiver.dim != self.vision.dim:
            raise ConfigError(
                f"Got a perceiver of {self.perceiver.dim} dimensions on a mask decoder of {self.vision.dim}; "
                "wanted the same."
            )
        if (
            min(self.language.heads, self.language.kv_heads) < 1
            or self.language.hidden_size % self.language.heads
            or self.language.heads % self.language.kv_heads
        ):
            raise ConfigError(
                f"Got {self.language.heads} heads and {self.language.kv_heads} key-value heads for "
                f"{self.language.hidden_size} dimensions; wanted each to divide the one before it."
            )

    def to_json(self) -> dict[str, Any]:
        """`config.json` with the fields that the released code reads; the sizes it takes for granted beside them."""
        return {
            "architectures": ["LlavaQwenForCausalLM"],
            "model_type": self.model_type,
            **self.language.to_qwen2(),
            "hidden_act": "silu",
            "attention_dropout": 0.0,
            "use_sliding_window": False,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": self.eos_token_id,
            "use_cache": True,
            "mm_vision_tower": self.vision_name,
            "mm_hidden_size": self.vision.dim,
            "mm_projector_type": "mlp2x_gelu",
            "mm_use_im_start_end": False,
            "mm_use_im_patch_token": False,
            "tokenizer_model_max_length": self.max_length,
            "tokenizer_padding_side": "right",
            "vision_config": asdict(self.vision),
            "perceiver_config": asdict(self.perceiver),
        }

    @classmethod
    def from_json(
        cls,
        data: Mapping[str, Any],
        vision: VisionConfig | None = None,
        perceiver: PerceiverConfig | None = None,
    ) -> PamConfig:
        """Read `config.json`, released or written here. Raises ConfigError.

        Where it has no `vision_config` or `perceiver_config` (the released ones have neither), `vision` and
        `perceiver` stand in; without them, the size named by `mm_vision_tower` and the released perceiver.
        """
        name = data.get("mm_vision_tower")
        if not isinstance(name, str) or "sam2" not in name:
            raise ConfigError(
                f"Got mm_vision_tower {name!r} in config.json; wanted a SAM 2, e.g. {cls.vision_name!r}."
            )
        kind = data.get("model_type", cls.model_type)
        if kind not in ("qwen2", "llava_qwen"):
            raise ConfigError(f"Got model_type {kind!r} in config.json; wanted qwen2 or llava_qwen.")
        if data.get("mm_projector_type", "mlp2x_gelu") != "mlp2x_gelu":
            raise ConfigError(f"Got mm_projector_type {data['mm_projector_type']!r}; wanted mlp2x_gelu.")
        if "vision_config" in data:
            vision = _read(VisionConfig, data["vision_config"])
        elif vision is None:
            vision = next((config for size, config in SAM2_SIZES.items() if size in name), VisionConfig())
        if "perceiver_config" in data:
            perceiver = _read(PerceiverConfig, data["perceiver_config"])
        needed = [HF_KEYS.get(f.name, f.name) for f in fields(LanguageConfig)]
        rope = data.get("rope_parameters") or {}  # where newer versions of transformers keep rope_theta
        if not isinstance(rope, Mapping):
            raise ConfigError(f"Got rope_parameters {rope!r} in config.json; wanted rope_theta in it.")
        said = {**data, "rope_theta": data.get("rope_theta", rope.get("rope_theta", LanguageConfig.rope_theta))}
        missing = [key for key in needed if key not in said and key not in ("tie_word_embeddings", "rms_norm_eps")]
        if missing:
            raise ConfigError(f"config.json has no {', '.join(missing)}; wanted the fields of a Qwen2 model.")
        here = {f.name: said[key] for f, key in zip(fields(LanguageConfig), needed, strict=True) if key in said}
        eos = data.get("eos_token_id")
        eos = eos[0] if isinstance(eos, list) and eos else eos
        return cls(
            vision=vision,
            perceiver=perceiver or replace(PerceiverConfig(), dim=vision.dim),
            language=_read(LanguageConfig, {"tied": False, **here}),
            vision_name=name,
            model_type=kind,
            max_length=_number("tokenizer_model_max_length", data.get("tokenizer_model_max_length"), cls.max_length),
            bos_token_id=_number("bos_token_id", data.get("bos_token_id"), cls.bos_token_id),
            eos_token_id=_number("eos_token_id", eos, cls.eos_token_id),
        )


RELEASED = {
    "PAM-1.5B": PamConfig(language=LanguageConfig(1536, 28, 12, 2, 8960)),
    "PAM-3B": PamConfig(),
}
"""The released models by name. The language models are Qwen2.5-1.5B-Instruct's and Qwen2.5-3B-Instruct's sizes."""


def _number(name: str, value: object, default: int) -> int:
    """A number of config.json that may be left out or null."""
    if value is None:
        return default
    if type(value) is not int or value < 0:
        raise ConfigError(f"Got {name} {value!r} in config.json; wanted a whole number.")
    return value


Part = TypeVar("Part", VisionConfig, PerceiverConfig, LanguageConfig)


def _read(part: type[Part], data: Mapping[str, Any]) -> Part:
    """One part out of JSON, each field of the type it should have."""
    if not isinstance(data, Mapping):
        raise ConfigError(f"Got {data!r} for {part.__name__}; wanted its fields by name.")
    hints = get_type_hints(part)
    unknown = sorted(set(data) - set(hints))
    if unknown:
        raise ConfigError(f"Got {', '.join(unknown)} in {part.__name__}; wanted some of {', '.join(hints)}.")
    return part(**{name: _checked(part, name, hints[name], value) for name, value in data.items()})


def _checked(part: type[Part], name: str, kind: Any, value: Any) -> Any:
    if (
        get_origin(kind) is tuple
        and isinstance(value, (list, tuple))
        and all(isinstance(item, int) for item in value)
    ):
        return tuple(value)
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if kind in (int, str, bool) and type(value) is kind and not (kind is int and value < 0):
        return value
    wanted = "a list of whole numbers" if get_origin(kind) is tuple else kind.__name__
    raise ConfigError(f"Got {name} {value!r} in {part.__name__}; wanted {wanted}.")
