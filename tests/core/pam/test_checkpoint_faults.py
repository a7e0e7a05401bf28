"""Bad checkpoints: each ends in one sentence that says what was got, in Python and on the command line."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pam_core.errors import CheckpointError, ConfigError
from pam_core.pam import checkpoint as checkpoints
from pam_core.pam.checkpoint import load_pretrained
from pam_core.pam.config import SAM2_SIZES, PamConfig
from pam_core.pam.location import INDEX, SINGLE
from pam_plugins.models.pam.info import VARIABLE
from tests.core.pam.conftest import PARITY, Pam, shard
from tests.factories import shapes, write_picture
from tests.paths import ROOT

Damage = Callable[[Path], object]


def cut(name: str) -> Damage:
    """Only the first half of a file."""
    return lambda folder: (folder / name).write_bytes(
        (folder / name).read_bytes()[: (folder / name).stat().st_size // 2]
    )


def text(name: str, content: str) -> Damage:
    return lambda folder: (folder / name).write_text(content)


def remove(*names: str) -> Damage:
    return lambda folder: [(folder / name).unlink() for name in names]


def config(**fields: Any) -> Damage:
    """config.json with other values; None takes a field away."""

    def damage(folder: Path) -> None:
        data = json.loads((folder / "config.json").read_text()) | fields
        (folder / "config.json").write_text(json.dumps({k: v for k, v in data.items() if v is not None}))

    return damage


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Damage:
    def damage(folder: Path) -> None:
        tensors = safetensors.torch.load_file(folder / SINGLE)
        change(tensors)
        safetensors.torch.save_file(tensors, folder / SINGLE)

    return damage


def sharded(damage: Damage) -> Damage:
    def both(folder: Path) -> None:
        shard(folder)
        damage(folder)

    return both


def drop_vision(tensors: dict[str, torch.Tensor]) -> None:
    for key in [key for key in tensors if key.startswith("model.vision_tower.")]:
        del tensors[key]


def empty(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def a_file(folder: Path) -> None:
    empty(folder)
    folder.rmdir()
    folder.write_text("a file")


def pickled(folder: Path) -> None:
    (folder / SINGLE).unlink()
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")


NORM = "model.norm.weight"
SEMANTIC = "model.vision_resampler.sem_tokens.weight"
SECOND = "model-00002-of-00002.safetensors"
FAULTS: dict[str, tuple[Damage, str]] = {
    "weights cut short": (cut(SINGLE), r"model\.safetensors: damaged or cut short .*fetch it again"),
    "weights empty": (text(SINGLE, ""), r"model\.safetensors: damaged or cut short"),
    "weights are text": (text(SINGLE, "<html>" * 1000), r"model\.safetensors: damaged or cut short"),
    "a shard cut short": (sharded(cut(SECOND)), rf"{SECOND}: damaged or cut short"),
    "a shard missing": (sharded(remove(SECOND)), rf"{SECOND}: no such file; fetch the checkpoint again"),
    "an index of files elsewhere": (
        text(INDEX, '{"weight_map": {"a": "../model.safetensors"}}'),
        r"not an index of weights \(it names files outside its folder\)",
    ),
    "an index that is not JSON": (text(INDEX, "{"), r"index\.json: not an index of weights"),
    "an index of something else": (text(INDEX, "[1]"), r"index\.json: not an index of weights"),
    "no weights": (remove(SINGLE), r"holds no model\.safetensors and no model\.safetensors\.index\.json"),
    "no config": (remove("config.json"), r"holds no config\.json, and none below it"),
    "config is not JSON": (text("config.json", "{"), r"config\.json: cannot be read"),
    "config is not text": (
        lambda folder: (folder / "config.json").write_bytes(b"\xff\xfe"),
        r"config\.json: cannot be",
    ),
    "config is a list": (text("config.json", "[]"), r"config\.json: holds list; wanted a JSON object"),
    "other hidden size": (
        config(hidden_size=128),
        r"(model|lm_head)\.\S+ is \[.*64.*\]; wanted \[.*128.*\] by config\.json",
    ),
    "other vocabulary": (config(vocab_size=500), r"model\.embed_tokens\.weight is \[501, 64\]; wanted \[500, 64\]"),
    "more layers": (config(num_hidden_layers=3), r"lacks model\.layers\.2\.\S+, .* and \d+ more"),
    "fewer layers": (config(num_hidden_layers=1), r"also holds model\.layers\.1\.\S+, .* and \d+ more"),
    "no heads": (config(num_attention_heads=0), r"config\.json: Got 0 heads"),
    "a size in words": (
        config(hidden_size="big"),
        r"config\.json: Got hidden_size 'big' in LanguageConfig; wanted int",
    ),
    "no size": (config(hidden_size=None), r"config\.json has no hidden_size; wanted the fields of a Qwen2 model"),
    "other model": (
        config(model_type="llama"),
        r"Got model_type 'llama' in config\.json; wanted qwen2 or llava_qwen",
    ),
    "no vision tower": (config(mm_vision_tower=None), r"Got mm_vision_tower None in config\.json; wanted a SAM 2"),
    "other vision tower": (config(mm_vision_tower="clip"), r"Got mm_vision_tower 'clip'"),
    "no end token": (config(eos_token_id=[]), r"Got eos_token_id \[\]"),
    "a key missing": (weights(lambda t: t.pop(NORM)), rf"lacks {NORM}; its config\.json and its weights do not go"),
    "a key more": (weights(lambda t: t.update(extra=torch.zeros(1))), r"also holds extra; its config\.json and its"),
    "flat semantic tokens": (
        weights(lambda t: t.update({SEMANTIC: t[SEMANTIC].flatten()})),
        rf"{SEMANTIC} is \[1024\]; wanted two dimensions, as released",
    ),
    "whole numbers": (
        weights(lambda t: t.update({NORM: t[NORM].int()})),
        rf"{NORM} is torch\.int32; wanted floating",
    ),
    "no tokenizer": (remove("tokenizer_config.json"), r"holds no tokenizer .*copy it there from the release"),
    "no words": (remove("tokenizer.json", "vocab.json"), r"holds no tokenizer"),
    "tokenizer cut short": (cut("tokenizer.json"), r"its tokenizer cannot be read .*copy it from the release"),
    "generation is not JSON": (text("generation_config.json", "{"), r"generation_config\.json: cannot be read"),
    "a pickle": (
        pickled,
        r"pytorch_model\.bin: a pickle, which can run code.*wanted safetensors.*pam convert .* --trust-pickle",
    ),
    "no SAM 2": (weights(drop_vision), r"holds no weights of SAM 2 .*sam2\.safetensors; wanted either.*pam convert"),
    "SAM 2 beside it cut short": (
        lambda folder: (weights(drop_vision)(folder), text("sam2.safetensors", "no")(folder)),
        r"sam2\.safetensors: damaged or cut short",
    ),
    "another SAM 2 beside it": (
        lambda folder: (
            weights(drop_vision)(folder),
            safetensors.torch.save_file({"other": torch.zeros(1)}, folder / "sam2.safetensors"),
        ),
        r"lacks model\.vision_tower\.\S+",
    ),
    "sizes of SAM 2 are no YAML": (text("sam2_tiny.yaml", "{"), r"sam2_tiny\.yaml: "),
    "sizes of SAM 2 would run code": (
        text("sam2_tiny.yaml", "model: !!python/object/apply:os.abort []"),
        r"sam2_tiny\.yaml: could not determine a constructor",
    ),
    "sizes of something else": (text("sam2_tiny.yaml", "model: 1"), r"sam2_tiny\.yaml: This is not a SAM 2\.1"),
    "an empty folder": (empty, r"holds no config\.json"),
    "a file": (a_file, r"a file; wanted the folder of a checkpoint"),
}


def one_sentence(message: str) -> bool:
    return "\n" not in message and len(message) < 600 and message.endswith((".", "--trust-pickle"))


@pytest.mark.parametrize(("damage", "said"), FAULTS.values(), ids=FAULTS)
def test_a_bad_checkpoint_is_one_sentence(
    damage: Damage, said: str, checkpoint: Path, pam: Pam, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    damage(checkpoint)
    with pytest.raises(CheckpointError, match=said) as caught:
        load_pretrained(checkpoint)
    assert one_sentence(str(caught.value)), str(caught.value)
    monkeypatch.setenv(VARIABLE, str(checkpoint))
    photo = write_picture(tmp_path / "photo.png", shapes(64, 48, 1)[0])
    result = pam("perceive", photo, "--point", "1,1", "--model", "pam")
    assert result.exit_code == 1
    assert str(caught.value) in result.stderr
    assert pam("models").exit_code == 0, "nothing of it disturbs the list"


def test_nothing_of_that_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no such folder, and no name of a repository either\.$"):
        load_pretrained(tmp_path / "nothing")


def test_two_checkpoints_in_one_folder(checkpoint: Path) -> None:
    for name in ("a", "b"):
        (checkpoint.parent / name).mkdir()
        (checkpoint / "config.json").rename(checkpoint.parent / name / "config.json")
        (checkpoint / "config.json").write_text("{}")
    (checkpoint / "config.json").unlink()
    with pytest.raises(
        CheckpointError, match=r"2 folders that have one \(a, b\) below it; name the folder that does"
    ):
        load_pretrained(checkpoint.parent)


class Trap:
    """A pickle that makes a file when it is read."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.file,))


@pytest.mark.parametrize("trusted", [False, True])
def test_a_pickle_that_would_run_code(checkpoint: Path, pam: Pam, tmp_path: Path, trusted: bool) -> None:
    (checkpoint / SINGLE).unlink()
    torch.save({"weight": Trap(tmp_path / "sprung")}, checkpoint / "pytorch_model.bin")
    out = tmp_path / "out"
    result = pam("convert", checkpoint, "--out", out, *(["--trust-pickle"] if trusted else []))
    assert result.exit_code == 1
    assert ("nothing else is read from a pickle" if trusted else "a pickle, which can run code") in result.stderr
    assert one_sentence(result.stderr.splitlines()[-1])
    assert not (tmp_path / "sprung").exists()
    assert not out.exists()
    pickle.loads(pickle.dumps(Trap(tmp_path / "sprung")))
    assert (tmp_path / "sprung").exists(), "the trap works"


def test_code_in_a_checkpoint_is_not_run(checkpoint: Path, tmp_path: Path) -> None:
    code = f"from pathlib import Path\nPath({str(tmp_path / 'sprung')!r}).touch()\nclass Evil: pass\n"
    (checkpoint / "evil.py").write_text(code)
    config(auto_map={"AutoConfig": "evil.Evil", "AutoTokenizer": ["evil.Evil", None]})(checkpoint)
    tokens = json.loads((checkpoint / "tokenizer_config.json").read_text())
    tokens["auto_map"] = {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}
    (checkpoint / "tokenizer_config.json").write_text(json.dumps(tokens))
    sizes = (checkpoint / "sam2_tiny.yaml").read_text().replace("sam2.modeling.sam2_base.SAM2Base", "evil.Evil")
    (checkpoint / "sam2_tiny.yaml").write_text(sizes)
    assert load_pretrained(checkpoint).tokenizer is not None
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore"),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.\nFrames"
        ),
    ],
    ids=["python", "cuda", "cpu"],
)
def test_out_of_memory(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(checkpoints, "_assign", fail)
    with pytest.raises(
        CheckpointError, match=r"does not fit into the memory of cpu .*; its weights are 0\.0 GB"
    ) as caught:
        load_pretrained(PARITY)
    assert one_sentence(str(caught.value))


STARVED = """
import resource, sys
from pathlib import Path
import pam_core.pam.checkpoint
from pam_core.errors import CheckpointError
pam_core.pam.checkpoint.load_pretrained({small!r})
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + {spare}, -1))
try:
    pam_core.pam.checkpoint.load_pretrained({big!r})
except CheckpointError as error:
    sys.exit(str(error))
"""


@pytest.mark.e2e
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
@pytest.mark.parametrize("spare", [1 << 20, 200 << 20], ids=["cannot map the file", "cannot copy it"])
def test_a_process_without_memory(checkpoint: Path, spare: int) -> None:
    rows = torch.zeros(500_000, 64)
    weights(lambda tensors: tensors.update({"model.embed_tokens.weight": rows}))(checkpoint)
    config(vocab_size=len(rows))(checkpoint)
    script = STARVED.format(small=str(PARITY), big=str(checkpoint), spare=spare)
    paths = os.pathsep.join((str(ROOT), str(ROOT / "core")))
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "does not fit into the memory of cpu" in done.stderr.splitlines()[-1], done.stderr
    assert "Traceback" not in done.stderr


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 300) | st.floats(allow_nan=True) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
WRITTEN = PamConfig.from_json(json.loads((PARITY / "config.json").read_text()), SAM2_SIZES["tiny"]).to_json()


@settings(max_examples=300)
@given(data=st.data())
def test_any_config_is_built_or_refused(data: st.DataObject) -> None:
    """Whatever stands in one field of config.json: a model, or one sentence."""
    changed = json.loads(json.dumps(WRITTEN))
    part = data.draw(st.sampled_from([changed, changed["vision_config"], changed["perceiver_config"]]))
    key = data.draw(st.sampled_from(sorted(part)))
    part[key] = data.draw(JSON)
    try:
        checkpoints.build(Path("somewhere"), PamConfig.from_json(changed))
    except (CheckpointError, ConfigError) as error:
        assert "\n" not in str(error)
