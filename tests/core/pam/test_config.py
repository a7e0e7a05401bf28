"""What a model is made of: the released models key by key, SAM 2's own sizes, and config.json there and back."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pam_core.errors import ConfigError
from pam_core.pam.checkpoint import HEAD, released_key
from pam_core.pam.config import RELEASED, SAM2_SIZES, LanguageConfig, PamConfig, PerceiverConfig, VisionConfig
from pam_core.pam.model import PamModel
from pam_core.pam.weights import empty_weights
from tests.core.pam.conftest import PARITY

TINY = json.loads((PARITY / "config.json").read_text())


@pytest.mark.parametrize("name", RELEASED)
def test_a_released_model_has_the_released_keys_and_shapes(name: str) -> None:
    """In both directions. Only the head of a tied model may be in a checkpoint or not."""
    lines = (PARITY / f"state_dict_{name}.txt").read_text().splitlines()
    wanted = {key: json.loads(shape) for key, shape in (line.split("\t") for line in lines)}
    with empty_weights():
        model = PamModel(RELEASED[name])
    assert all(parameter.is_meta for parameter in model.parameters()), "no memory was taken"
    ours = {released_key(key): list(tensor.shape) for key, tensor in model.state_dict().items()}
    assert RELEASED[name].language.tied
    wanted.setdefault(HEAD, wanted["model.embed_tokens.weight"])
    assert ours == wanted


@pytest.mark.parametrize(
    ("size", "file"), [("tiny", "t"), ("small", "s"), ("base_plus", "b+"), ("large", "l")], ids=lambda value: value
)
def test_the_sizes_of_sam_2_are_its_own(size: str, file: str) -> None:
    found = importlib.util.find_spec("sam2")
    assert found is not None
    assert found.submodule_search_locations
    text = Path(found.submodule_search_locations[0], "configs", "sam2.1", f"sam2.1_hiera_{file}.yaml").read_text()
    assert VisionConfig.from_sam2_yaml(yaml.safe_load(text)) == SAM2_SIZES[size]
    assert PamConfig.from_json(TINY | {"mm_vision_tower": f"meta/sam2.1_hiera_{size}"}).vision == SAM2_SIZES[size]


def test_the_tiny_model() -> None:
    vision = VisionConfig.from_sam2_yaml(yaml.safe_load((PARITY / "sam2_tiny.yaml").read_text()))
    config = PamConfig.from_json(TINY, vision)
    assert config.language == LanguageConfig(64, 2, 4, 2, 128, 501)
    assert (vision.embed_dim, vision.stages, vision.dim, vision.grid) == (16, (1, 2, 3, 2), 64, 64)
    assert config.perceiver == PerceiverConfig(dim=64)
    assert (config.bos_token_id, config.eos_token_id, config.max_length) == (487, 489, 12288)


sizes = st.integers(1, 5000)


@st.composite
def configs(draw: st.DrawFn) -> PamConfig:
    kv, groups, width = draw(sizes), draw(st.integers(1, 8)), draw(st.integers(1, 128))
    heads = kv * groups
    counts = st.lists(sizes, min_size=1, max_size=5).map(tuple)
    dim = draw(sizes)
    vision = VisionConfig(draw(sizes), draw(sizes), draw(counts), draw(counts), draw(sizes), draw(counts), dim)
    perceiver = PerceiverConfig(
        dim,
        draw(sizes),
        draw(sizes),
        draw(sizes),
        draw(st.integers(0, 64)),
        "before",
        draw(st.sampled_from(["mask", "all"])),
    )
    language = LanguageConfig(
        heads * width, draw(sizes), heads, kv, draw(sizes), draw(sizes), draw(st.booleans()), draw(st.floats(1e-9, 1))
    )
    kind = draw(st.sampled_from(["qwen2", "llava_qwen"]))
    return PamConfig(vision, perceiver, language, "meta/sam2.1_hiera_tiny", kind, draw(sizes), 0, draw(sizes))


@given(configs())
def test_config_json_there_and_back(config: PamConfig) -> None:
    assert PamConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize("name", RELEASED)
def test_a_released_config_says_no_sizes_of_ours(name: str) -> None:
    data = {key: value for key, value in RELEASED[name].to_json().items() if not key.endswith("_config")}
    assert PamConfig.from_json(data) == RELEASED[name]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"eos_token_id": [5, 6]}, lambda config: config.eos_token_id == 5),
        ({"eos_token_id": None, "bos_token_id": None}, lambda config: config.eos_token_id == PamConfig.eos_token_id),
        (
            {"rope_theta": ..., "rope_parameters": {"rope_theta": 7.0}},
            lambda config: config.language.rope_theta == 7.0,
        ),
        ({"rope_theta": 9}, lambda config: config.language.rope_theta == 9.0),
        ({"tie_word_embeddings": ...}, lambda config: not config.language.tied),
        ({"model_type": ...}, lambda config: config.model_type == "llava_qwen"),
        ({"vision_config": {"embed_dim": 8, "stages": [1, 2]}}, lambda config: config.vision.stages == (1, 2)),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, dict) else "",
)
def test_the_ways_to_say_it(fields: dict[str, Any], expected: Callable[[PamConfig], bool]) -> None:
    """As other versions of transformers write it; ... is a field left out."""
    data = {key: value for key, value in (TINY | fields).items() if value is not ...}
    assert expected(PamConfig.from_json(data, SAM2_SIZES["tiny"]))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"mm_vision_tower": None}, r"Got mm_vision_tower None in config\.json; wanted a SAM 2, e\.g\. 'meta/sam2"),
        ({"mm_vision_tower": 3}, "Got mm_vision_tower 3"),
        ({"mm_vision_tower": "clip-large"}, "Got mm_vision_tower 'clip-large'"),
        ({"model_type": "llama"}, r"Got model_type 'llama' in config\.json; wanted qwen2 or llava_qwen\."),
        ({"mm_projector_type": "linear"}, r"Got mm_projector_type 'linear'; wanted mlp2x_gelu\."),
        ({"num_attention_heads": 3}, "Got 3 heads and 2 key-value heads for 64 dimensions; wanted each to divide"),
        ({"num_key_value_heads": 3}, "Got 4 heads and 3 key-value heads for 64 dimensions; wanted each to divide"),
        ({"num_key_value_heads": 0}, "Got 4 heads and 0 key-value heads"),
        (
            {"hidden_size": ..., "vocab_size": ...},
            r"config\.json has no hidden_size, vocab_size; wanted the fields of a",
        ),
        ({"hidden_size": "64"}, r"Got hidden_size '64' in LanguageConfig; wanted int\."),
        ({"hidden_size": -64}, r"Got hidden_size -64 in LanguageConfig; wanted int\."),
        ({"hidden_size": True}, r"Got hidden_size True in LanguageConfig; wanted int\."),
        ({"rms_norm_eps": "small"}, r"Got rms_norm_eps 'small' in LanguageConfig; wanted float\."),
        ({"rope_theta": None}, r"Got rope_theta None in LanguageConfig; wanted float\."),
        ({"tie_word_embeddings": 1}, r"Got tied 1 in LanguageConfig; wanted bool\."),
        ({"rope_parameters": [1]}, r"Got rope_parameters \[1\] in config\.json; wanted rope_theta in it\."),
        ({"eos_token_id": []}, r"Got eos_token_id \[\] in config\.json; wanted a whole number\."),
        ({"bos_token_id": 1.5}, r"Got bos_token_id 1\.5 in config\.json; wanted a whole number\."),
        ({"tokenizer_model_max_length": "long"}, "Got tokenizer_model_max_length 'long' in config"),
        ({"vision_config": 3}, r"Got 3 for VisionConfig; wanted its fields by name\."),
        ({"vision_config": {"depth": 3}}, "Got depth in VisionConfig; wanted some of embed_dim, heads, stages"),
        (
            {"vision_config": {"stages": ["1"]}},
            r"Got stages \['1'\] in VisionConfig; wanted a list of whole numbers\.",
        ),
        ({"perceiver_config": {"tokens": "some"}}, r"Got tokens 'some'; wanted mask or all\."),
        ({"perceiver_config": {"image_features": "raw"}}, r"Got image_features 'raw'; wanted after or before\."),
        (
            {"perceiver_config": {"dim": 32}},
            "Got a perceiver of 32 dimensions on a mask decoder of 256; wanted the same",
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_cannot_be_is_said(fields: dict[str, Any], said: str) -> None:
    data = {key: value for key, value in (TINY | fields).items() if value is not ...}
    with pytest.raises(ConfigError, match=said) as caught:
        PamConfig.from_json(data, SAM2_SIZES["tiny"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", [lambda c: c.pop("model"), lambda c: c["model"].pop("image_size")])
def test_another_yaml_is_no_sam_2(change: Callable[[dict[str, Any]], object]) -> None:
    data = yaml.safe_load((PARITY / "sam2_tiny.yaml").read_text())
    change(data)
    with pytest.raises(ConfigError, match=r"^This is not a SAM 2\.1 configuration: KeyError\('\w+'\) is missing"):
        VisionConfig.from_sam2_yaml(data)


@pytest.mark.parametrize("data", [None, [], "text", {"model": 3}, {"model": {"image_encoder": {"trunk": []}}}])
def test_something_else_is_no_sam_2(data: Any) -> None:
    with pytest.raises(ConfigError, match="This is not a SAM 2"):
        VisionConfig.from_sam2_yaml(data)


def test_sizes_of_other_types_are_refused() -> None:
    data = yaml.safe_load((PARITY / "sam2_tiny.yaml").read_text())
    data["model"]["image_encoder"]["trunk"]["stages"] = "1234"
    with pytest.raises(ConfigError, match=r"Got stages '1234' in VisionConfig; wanted a list of whole numbers\."):
        VisionConfig.from_sam2_yaml(data)


def test_a_config_made_in_python_is_checked_too() -> None:
    with pytest.raises(ConfigError, match="Got 0 heads"):
        replace(PamConfig(), language=LanguageConfig(heads=0))
