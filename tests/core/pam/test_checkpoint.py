"""Checkpoints: written and read again bit by bit, and read by transformers and SAM 2 themselves."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import transformers
from hydra import initialize_config_dir, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from sam2.build_sam import build_sam2
from torch import Tensor

from pam_core.errors import CheckpointError
from pam_core.pam import checkpoint as checkpoints
from pam_core.pam.checkpoint import (
    EMBEDDING,
    HEAD,
    VISION_PREFIX,
    convert,
    load_pretrained,
    released_key,
    save_pretrained,
)
from pam_core.pam.location import INDEX, SINGLE, fingerprint
from pam_core.pam.model import PamModel
from pam_plugins.models.pam.info import VARIABLE
from tests.core.pam.conftest import PARITY, Pam, shard
from tests.paths import ROOT

IDS = torch.tensor([[1, 7, 300, 42, 487, 500]])


def quietly(_: str) -> None:
    pass


def same(one: PamModel, other: PamModel) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(
        mine[key].dtype == theirs[key].dtype and torch.equal(mine[key], theirs[key]) for key in mine
    )


def stored(folder: Path) -> dict[str, Tensor]:
    return {
        key: tensor
        for file in sorted(folder.glob("model*.safetensors"))
        for key, tensor in safetensors.torch.load_file(file).items()
    }


def change(folder: Path, **fields: Any) -> None:
    data = json.loads((folder / "config.json").read_text()) | fields
    (folder / "config.json").write_text(json.dumps(data))


@pytest.fixture(scope="session")
def saved(tiny: PamModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is saved of the tiny model; not to be changed."""
    folder = tmp_path_factory.mktemp("saved")
    save_pretrained(tiny, folder)
    return folder


def test_the_released_layout_is_written_bit_by_bit(saved: Path) -> None:
    released, ours = safetensors.torch.load_file(PARITY / SINGLE), stored(saved)
    assert released.keys() - ours.keys() <= {HEAD}, "the head of a tied model is its embedding"
    assert not ours.keys() - released.keys()
    assert all(torch.equal(ours[key], released[key]) for key in ours)
    there = json.loads((PARITY / "config.json").read_text())
    here = json.loads((saved / "config.json").read_text())
    assert {key: here[key] for key in here.keys() & there.keys() if here[key] != there[key]} == {}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("size", "files"), [("5GB", 1), ("1MB", 11)])
def test_saved_and_loaded_again(tmp_path: Path, dtype: torch.dtype, size: str, files: int) -> None:
    model = load_pretrained(PARITY, dtype=dtype)
    save_pretrained(model, tmp_path, size)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (files > 1) == (tmp_path / INDEX).exists()
    again = load_pretrained(tmp_path)
    assert same(model, again)
    assert again.config == model.config
    assert again.generation == model.generation
    assert again.tokenizer is not None
    assert model.tokenizer is not None
    assert again.tokenizer("Was ist das? 猫").input_ids == model.tokenizer("Was ist das? 猫").input_ids


def test_saved_over_another(tmp_path: Path, tiny: PamModel) -> None:
    save_pretrained(tiny, tmp_path, "1MB")
    save_pretrained(tiny, tmp_path)
    assert [file.name for file in tmp_path.glob("*.safetensors*")] == [SINGLE]
    assert same(tiny, load_pretrained(tmp_path))


@pytest.mark.parametrize("kind", ["qwen2", "llava_qwen"])
def test_both_names_of_the_model(checkpoint: Path, tmp_path: Path, tiny: PamModel, kind: str) -> None:
    change(checkpoint, model_type=kind)
    model = load_pretrained(checkpoint)
    assert same(model, tiny)
    save_pretrained(model, tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text())["model_type"] == kind


@pytest.mark.parametrize("there", [True, False], ids=["a head of its own", "no head"])
def test_an_untied_head(checkpoint: Path, tmp_path: Path, there: bool) -> None:
    """A head that is not there is the embedding, whatever the configuration says."""
    change(checkpoint, tie_word_embeddings=False)
    weights = stored(checkpoint)
    head = weights[EMBEDDING].flip(0) if there else weights[EMBEDDING]
    weights.pop(HEAD, None)
    safetensors.torch.save_file(weights | ({HEAD: head.contiguous()} if there else {}), checkpoint / SINGLE)
    model = load_pretrained(checkpoint)
    assert torch.equal(model.language.lm_head.weight, head)
    assert (model.language.lm_head.weight is model.language.model.embed_tokens.weight) == (not there)
    save_pretrained(model, tmp_path / "again")
    assert (HEAD in stored(tmp_path / "again")) == there
    assert same(model, load_pretrained(tmp_path / "again"))
    convert(checkpoint, None, tmp_path / "converted", trust_pickle=False, progress=quietly)
    assert same(model, load_pretrained(tmp_path / "converted"))


def test_a_tied_head_is_the_embedding(checkpoint: Path) -> None:
    weights = stored(checkpoint)
    safetensors.torch.save_file(weights | {HEAD: torch.zeros_like(weights[EMBEDDING])}, checkpoint / SINGLE)
    model = load_pretrained(checkpoint)
    assert model.language.lm_head.weight is model.language.model.embed_tokens.weight
    assert torch.equal(model.language.lm_head.weight, weights[EMBEDDING])


def test_rows_beyond_the_tokenizer_are_kept(checkpoint: Path, tmp_path: Path) -> None:
    weights = stored(checkpoint)
    rows = torch.cat([weights[EMBEDDING], torch.randn(27, 64)])
    safetensors.torch.save_file({**weights, EMBEDDING: rows}, checkpoint / SINGLE)
    change(checkpoint, vocab_size=len(rows))
    model = load_pretrained(checkpoint)
    assert torch.equal(model.language.model.embed_tokens.weight, rows)
    save_pretrained(model, tmp_path / "again")
    assert torch.equal(stored(tmp_path / "again")[EMBEDDING], rows)


def test_a_checkpoint_inside_a_folder(checkpoint: Path, tmp_path: Path, tiny: PamModel) -> None:
    home = tmp_path / "released" / "PAM-1.5B"
    home.parent.mkdir()
    checkpoint.rename(home)
    (home.parent / "README.md").write_text("PAM")
    assert same(load_pretrained(home.parent), tiny)
    assert same(load_pretrained(home.parent, subfolder="PAM-1.5B"), tiny)


def test_a_tokenizer_in_a_folder_of_its_own(tiny: PamModel) -> None:
    assert not (PARITY / "tokenizer_config.json").exists()
    assert tiny.tokenizer is not None


@pytest.mark.parametrize("prefix", ["", VISION_PREFIX], ids=["SAM 2's keys", "released keys"])
@pytest.mark.parametrize("named", [True, False], ids=["named", "beside it"])
def test_sam_2_in_a_file_of_its_own(
    checkpoint: Path, tmp_path: Path, tiny: PamModel, prefix: str, named: bool
) -> None:
    weights = stored(checkpoint)
    vision = {key: weights.pop(key) for key in list(weights) if key.startswith(VISION_PREFIX)}
    safetensors.torch.save_file(weights, checkpoint / SINGLE)
    file = tmp_path / "elsewhere.safetensors" if named else checkpoint / "sam2.safetensors"
    safetensors.torch.save_file({prefix + key.removeprefix(VISION_PREFIX): t for key, t in vision.items()}, file)
    assert same(load_pretrained(checkpoint, sam2=file if named else None), tiny)
    convert(checkpoint, file if named else None, tmp_path / "out", trust_pickle=False, progress=quietly)
    assert same(load_pretrained(tmp_path / "out"), tiny)


def test_a_named_sam_2_replaces_the_one_inside(checkpoint: Path, tmp_path: Path) -> None:
    other = {
        key.removeprefix(VISION_PREFIX): torch.full_like(tensor, 0.5)
        for key, tensor in stored(checkpoint).items()
        if key.startswith(VISION_PREFIX)
    }
    safetensors.torch.save_file(other, tmp_path / "sam2.safetensors")
    model = load_pretrained(checkpoint, sam2=tmp_path / "sam2.safetensors")
    assert all((parameter == 0.5).all() for parameter in model.vision.sam.parameters())


def test_transformers_reads_the_language_model(saved: Path, tiny: PamModel) -> None:
    theirs = transformers.Qwen2ForCausalLM.from_pretrained(saved).eval()
    with torch.no_grad():
        assert torch.equal(theirs(IDS).logits, tiny.language(IDS).logits)


@pytest.fixture
def sam2_configs() -> Iterator[None]:
    """SAM 2's own builder finds the tiny model's configuration instead of its own."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(PARITY), version_base="1.2"):
        yield
    GlobalHydra.instance().clear()
    initialize_config_module("sam2", version_base="1.2")


@pytest.mark.usefixtures("sam2_configs")
def test_sam_2_reads_the_vision_tower(saved: Path, tiny: PamModel) -> None:
    theirs = build_sam2("sam2_tiny.yaml", device="cpu")
    vision = {
        key.removeprefix(VISION_PREFIX): tensor
        for key, tensor in stored(saved).items()
        if key.startswith(VISION_PREFIX)
    }
    theirs.load_state_dict(vision, strict=True)
    picture = torch.randn(1, 3, 1024, 1024, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        made, expected = tiny.vision.sam.image_encoder(picture), theirs.image_encoder(picture)
    assert all(torch.equal(a, b) for a, b in zip(made["backbone_fpn"], expected["backbone_fpn"], strict=True))


def as_pickles(folder: Path, *, shared_head: bool = True) -> Path:
    """A folder's weights as pickles: the language model's in two, SAM 2's as it is published. Where that is."""
    weights = stored(folder)
    sam2 = {k.removeprefix(VISION_PREFIX): weights.pop(k) for k in list(weights) if k.startswith(VISION_PREFIX)}
    if shared_head:
        weights[HEAD] = weights[EMBEDDING]
    keys = [HEAD, EMBEDDING, *sorted(weights.keys() - {HEAD, EMBEDDING})]
    torch.save({key: weights[key] for key in keys[:20]}, folder / "pytorch_model-00001-of-00002.bin")
    torch.save({key: weights[key] for key in keys[20:]}, folder / "pytorch_model-00002-of-00002.bin")
    torch.save({"lr": 0.1, "steps": [1]}, folder / "training_args.bin")
    (folder / SINGLE).unlink()
    file = folder.parent / "sam2.pt"
    torch.save({"model": sam2}, file)
    return file


def test_converted_from_pickles(checkpoint: Path, tmp_path: Path, tiny: PamModel, pam: Pam) -> None:
    sam2 = as_pickles(checkpoint)
    result = pam("convert", checkpoint, "--sam2", sam2, "--out", tmp_path / "out", "--trust-pickle")
    assert result.exit_code == 0, result.stderr
    assert f"use it with {VARIABLE}={tmp_path / 'out'}" in result.stderr
    model = load_pretrained(tmp_path / "out")
    assert same(model, tiny)
    assert model.config == tiny.config
    assert model.generation == tiny.generation
    assert not list((tmp_path / "out").glob("*.bin"))


def test_converting_needs_trust(checkpoint: Path, tmp_path: Path, pam: Pam) -> None:
    sam2 = as_pickles(checkpoint)
    result = pam("convert", checkpoint, "--sam2", sam2, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "a pickle, which can run code when it is read" in result.stderr
    assert not (tmp_path / "out").exists()


def test_converting_keeps_to_the_index(checkpoint: Path, tmp_path: Path, tiny: PamModel) -> None:
    shard(checkpoint)
    safetensors.torch.save_file({"other": torch.zeros(1)}, checkpoint / "recorded.safetensors")
    convert(checkpoint, None, tmp_path / "out", trust_pickle=False, progress=quietly)
    assert same(load_pretrained(tmp_path / "out"), tiny)


def test_nothing_is_converted_over_a_checkpoint(checkpoint: Path, tmp_path: Path, pam: Pam) -> None:
    before = fingerprint(checkpoint)
    for source in (PARITY, checkpoint):
        result = pam("convert", source, "--out", checkpoint)
        assert result.exit_code == 1
        assert f"{checkpoint}: already holds a checkpoint; name another folder" in result.stderr
    assert fingerprint(checkpoint) == before


def test_nothing_is_written_of_what_does_not_fit(checkpoint: Path, tmp_path: Path, pam: Pam) -> None:
    change(checkpoint, num_hidden_layers=3)
    result = pam("convert", checkpoint, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "lacks model.layers.2." in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("step", ["weights", "tokenizer"])
@pytest.mark.parametrize(
    "how", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=["full", "stopped"]
)
@pytest.mark.parametrize("again", [True, False], ids=["over another", "anew"])
def test_half_a_checkpoint_does_not_look_complete(
    tiny: PamModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, how: BaseException, again: bool
) -> None:
    if again:
        save_pretrained(tiny, tmp_path)

    def fail(*_: object, **__: object) -> None:
        raise how

    with monkeypatch.context() as patch:
        if step == "weights":
            patch.setattr(checkpoints, "save_torch_state_dict", fail)
        else:
            patch.setattr(type(tiny.tokenizer), "save_pretrained", fail)
        full = isinstance(how, OSError)
        with pytest.raises(CheckpointError if full else KeyboardInterrupt, match="No space left" if full else ""):
            save_pretrained(tiny, tmp_path)
    with pytest.raises(CheckpointError, match=r"holds no config\.json"):
        load_pretrained(tmp_path)
    save_pretrained(tiny, tmp_path)
    assert same(tiny, load_pretrained(tmp_path))


@pytest.mark.parametrize("part", ["config", "a shard", "model.layers.1.mlp", "mm_projector_semT", "vision_tower"])
def test_the_fingerprint_tells_checkpoints_apart(checkpoint: Path, tmp_path: Path, part: str) -> None:
    """Also one from another that was trained from it with most of the weights frozen."""
    weights = stored(checkpoint)
    safetensors.torch.save_file(weights, checkpoint / SINGLE)
    shutil.copytree(checkpoint, tmp_path / "copy")
    assert fingerprint(checkpoint) == fingerprint(tmp_path / "copy")
    if part == "config":
        change(checkpoint, max_position_embeddings=1)
    elif part == "a shard":
        shard(checkpoint)
    else:
        key = next(key for key in sorted(weights) if part in key)
        safetensors.torch.save_file({**weights, key: weights[key] + 1}, checkpoint / SINGLE)
    assert fingerprint(checkpoint) != fingerprint(tmp_path / "copy")


def test_every_key_has_a_released_one(tiny: PamModel) -> None:
    names = list(tiny.state_dict())
    assert len({released_key(name) for name in names}) == len(names)


FULL = """
import resource, runpy, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
sys.argv = ["pam", "convert", *sys.argv[1:]]
runpy.run_module("pam_plugins", run_name="__main__", alter_sys=True)
"""


@pytest.mark.e2e
def test_a_disk_that_fills_up(tmp_path: Path) -> None:
    """The operating system refuses the second megabyte of the weights."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(PARITY), "--out", str(tmp_path / "out")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "core")))},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"pam: {tmp_path / 'out'}: cannot be written ("), done.stderr
    assert not (tmp_path / "out" / "config.json").exists()
