"""`pam download`: what broke off is taken up at the byte, what is wrong is said, and the result is a hub's cache."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
import safetensors.torch
import torch
from huggingface_hub import constants

from pam_core.errors import CheckpointError
from pam_core.pam import hub as downloads
from pam_core.pam.checkpoint import load_pretrained
from pam_core.pam.location import cache_folder, find, find_cached
from tests.core.pam.conftest import PARITY, PARTS
from tests.core.pam.fake_hub import COMMIT, FakeHub, Request, serving, sha256
from tests.paths import ROOT

REPO = "Perceive-Anything/PAM-1.5B"
WEIGHTS = "PAM-1.5B/model.safetensors"
KEPT = 10 * 2**20
"""huggingface_hub writes pieces of this size, so up to as much is lost when a connection breaks."""


@pytest.fixture(scope="session")
def files() -> dict[str, bytes]:
    """The tiny checkpoint as a repository, its vocabulary made so large that the weights come in several pieces."""
    weights = safetensors.torch.load_file(PARITY / "model.safetensors")
    table = weights["model.embed_tokens.weight"]
    rows = torch.randn(80_000, table.shape[1], generator=torch.Generator().manual_seed(0))
    rows[: len(table)] = table
    config = json.loads((PARITY / "config.json").read_text()) | {"vocab_size": len(rows)}
    inside = {name: (PARITY / name).read_bytes() for name in PARTS}
    inside |= {path.name: path.read_bytes() for path in (PARITY / "tokenizer").iterdir()}
    inside["config.json"] = json.dumps(config).encode()
    inside["model.safetensors"] = safetensors.torch.save({**weights, "model.embed_tokens.weight": rows})
    inside["pytorch_model.bin"] = pickle.dumps("trap")
    return {
        "README.md": b"# PAM",
        ".gitattributes": b"",
        **{f"PAM-1.5B/{name}": data for name, data in inside.items()},
    }


@pytest.fixture
def hub(files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub with that repository, which huggingface_hub in this process asks, and an empty cache."""
    with serving(FakeHub(REPO, dict(files))) as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", running.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
        yield running


def partial(files: dict[str, bytes]) -> Path:
    return cache_folder(REPO) / "blobs" / f"{sha256(files[WEIGHTS])}.partial"


def test_what_arrives_is_an_ordinary_cache(hub: FakeHub, files: dict[str, bytes]) -> None:
    folder = downloads.download("PAM-1.5B")
    asked = len(hub.requests)
    assert find("PAM-1.5B") == folder / "PAM-1.5B"
    assert (folder / WEIGHTS).resolve() == (cache_folder(REPO) / "blobs" / sha256(files[WEIGHTS])).resolve()
    assert huggingface_hub.try_to_load_from_cache(REPO, WEIGHTS) == str(folder / WEIGHTS)
    assert load_pretrained("PAM-1.5B").config.language.vocab_size == 80_000
    assert len(hub.requests) == asked, "finding and loading ask nobody"
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert there == {name for name in files if not name.endswith((".md", ".gitattributes", ".bin"))}
    assert not hub.asked(".bin"), "pickles are left there"
    assert not list(cache_folder(REPO).rglob("*.partial"))


def test_a_second_download_transfers_no_weights(hub: FakeHub) -> None:
    first = downloads.download(REPO)
    hub.requests.clear()
    assert downloads.download(REPO, COMMIT) == first
    assert not hub.asked("")


def test_a_broken_connection_is_taken_up_at_the_byte(hub: FakeHub, files: dict[str, bytes]) -> None:
    hub.break_after = 15 * 2**20
    with pytest.raises(
        CheckpointError, match=r"the download broke off \(.*\); run it again, it goes on from there\.$"
    ):
        downloads.download("PAM-1.5B")
    assert partial(files).stat().st_size == KEPT
    with pytest.raises(
        CheckpointError, match=r"PAM-1\.5B: only in part on this machine; fetch the rest with: pam download"
    ):
        find_cached("PAM-1.5B")
    hub.break_after, hub.sent = None, 0
    hub.requests.clear()
    folder = downloads.download("PAM-1.5B")
    assert hub.asked(WEIGHTS) == [Request("GET", f"cdn/{WEIGHTS}", KEPT)]
    assert hub.sent == len(files[WEIGHTS]) - KEPT
    assert (folder / WEIGHTS).read_bytes() == files[WEIGHTS]


def test_a_connection_that_ends_early_is_taken_up_at_once(hub: FakeHub, files: dict[str, bytes]) -> None:
    hub.break_after, hub.polite = 15 * 2**20, True
    folder = downloads.download("PAM-1.5B")
    assert [request.first for request in hub.asked(WEIGHTS)] == [0, KEPT]
    assert (folder / WEIGHTS).read_bytes() == files[WEIGHTS]


@pytest.mark.parametrize("left", ["something else", "nothing", "all", "too much"])
def test_what_is_left_of_an_earlier_run(hub: FakeHub, files: dict[str, bytes], left: str) -> None:
    right = files[WEIGHTS]
    contents = {"something else": b"else", "nothing": b"", "all": right, "too much": right + b"x"}
    partial(files).parent.mkdir(parents=True)
    partial(files).write_bytes(contents[left])
    if left == "something else":
        with pytest.raises(CheckpointError, match=r"model\.safetensors arrived damaged \(its sha256 is wrong\)"):
            downloads.download("PAM-1.5B")
        assert not partial(files).exists()
    folder = downloads.download("PAM-1.5B")
    assert (folder / WEIGHTS).read_bytes() == files[WEIGHTS]
    assert (left == "all") == (not hub.asked(WEIGHTS))


def test_a_server_without_ranges_begins_anew(hub: FakeHub, files: dict[str, bytes]) -> None:
    partial(files).parent.mkdir(parents=True)
    partial(files).write_bytes(files[WEIGHTS][:1000])
    hub.ranges = False
    assert (downloads.download("PAM-1.5B") / WEIGHTS).read_bytes() == files[WEIGHTS]


def test_other_contents_of_the_right_size(hub: FakeHub, files: dict[str, bytes]) -> None:
    hub.lies[WEIGHTS] = bytes(len(files[WEIGHTS]))
    with pytest.raises(
        CheckpointError, match=r"arrived damaged \(its sha256 is wrong\) and was deleted; run it again\.$"
    ):
        downloads.download("PAM-1.5B")
    assert not list((cache_folder(REPO) / "blobs").iterdir())


@pytest.mark.parametrize("size", [1000, 40 * 2**20], ids=["shorter", "longer"])
def test_contents_of_another_size(hub: FakeHub, files: dict[str, bytes], size: int) -> None:
    hub.lies[WEIGHTS] = bytes(size)
    with pytest.raises(CheckpointError, match=r"the download broke off \(.*size.*\); run it again") as caught:
        downloads.download("PAM-1.5B")
    assert "\n" not in str(caught.value)
    assert not (cache_folder(REPO) / "blobs" / sha256(files[WEIGHTS])).exists()


API = f"api/models/{REPO}"


@pytest.mark.parametrize(
    ("refuse", "said"),
    [
        ({API: (401, "RepoNotFound")}, "no such repository, or a private one"),
        ({API: (404, "RepoNotFound")}, "no such repository, or a private one"),
        ({API: (404, "RevisionNotFound")}, "has no such branch, tag or commit"),
        ({API: (403, "GatedRepo")}, "it is gated; ask for access on its page"),
        ({f"{REPO}/resolve": (403, "GatedRepo")}, "it is gated; ask for access on its page"),
        ({API: (500, "")}, "refused with status 500; run it again later"),
        ({"cdn": (403, "")}, "refused with status 403; run it again later"),
        ({f"{REPO}/resolve/{COMMIT}/PAM-1.5B/config.json": (403, "")}, r"the download broke off \(403 Forbidden.*\)"),
    ],
    ids=["401", "404", "no revision", "gated", "gated files", "500", "file refused", "small file refused"],
)
def test_refusals_are_one_sentence(hub: FakeHub, refuse: dict[str, tuple[int, str]], said: str) -> None:
    hub.refuse = refuse
    with pytest.raises(CheckpointError, match=rf"^{REPO}: .*({said})") as caught:
        downloads.download("PAM-1.5B")
    assert "\n" not in str(caught.value)


def test_no_network(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(CheckpointError, match=rf"^{REPO}: the hub cannot be reached \(.+\); run it again"):
        downloads.download("PAM-1.5B")


def test_offline(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="HF_HUB_OFFLINE"):
        downloads.download("PAM-1.5B")
    assert not hub.requests


@pytest.mark.parametrize("name", ["no/such/name", "PAM 1.5B", "-", "../.."])
def test_no_name_of_a_repository(hub: FakeHub, name: str) -> None:
    with pytest.raises(CheckpointError, match=r"no name of a repository; wanted PAM-1\.5B, PAM-3B or OWNER/NAME\.$"):
        downloads.download(name)
    assert not hub.requests


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk(hub: FakeHub, files: dict[str, bytes]) -> None:
    partial(files).parent.mkdir(parents=True)
    partial(files).symlink_to("/dev/full")
    with pytest.raises(
        CheckpointError, match=rf"^{REPO}: the disk is full; make room for .*, it goes on from there\.$"
    ):
        downloads.download("PAM-1.5B")


def test_a_cache_that_is_a_file(hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(CheckpointError, match=rf"^{REPO}: the download broke off \(.*Not a directory"):
        downloads.download("PAM-1.5B")


def test_a_repository_of_pickles(hub: FakeHub) -> None:
    hub.files = {name: data for name, data in hub.files.items() if not name.endswith(".safetensors")}
    with pytest.raises(CheckpointError, match=r"holds no \*\.safetensors; other weights, such as pickles, are never"):
        downloads.download("PAM-1.5B")
    assert not hub.asked("")


def test_a_snapshot_that_lacks_weights(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As other programs leave it, which keep no list of what belongs to it."""
    downloads.download("PAM-1.5B")
    shutil.copytree(constants.HF_HUB_CACHE, tmp_path / "hub", symlinks=True, ignore=shutil.ignore_patterns("trees"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    (find_cached("PAM-1.5B") / WEIGHTS).resolve().unlink()
    with pytest.raises(
        CheckpointError, match=r"without model\.safetensors; fetch the rest with: pam download PAM-1\.5B$"
    ):
        find_cached("PAM-1.5B")
    folder = downloads.download("PAM-1.5B")
    assert find_cached("PAM-1.5B") == folder


def test_a_snapshot_that_lacks_a_shard(hub: FakeHub) -> None:
    del hub.files[WEIGHTS]
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    hub.files["PAM-1.5B/model.safetensors.index.json"] = json.dumps(index).encode()
    hub.files["PAM-1.5B/model-00001-of-00002.safetensors"] = safetensors.torch.save({"a": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"model-00002-of-00002\.safetensors: no such file"):
        downloads.download("PAM-1.5B")
    with pytest.raises(CheckpointError, match=r"without model-00002-of-00002\.safetensors; fetch the rest"):
        find_cached("PAM-1.5B")


def process(hub: FakeHub, *arguments: str) -> subprocess.Popen[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    variables = {
        "HF_ENDPOINT": hub.url,
        "HF_HUB_CACHE": constants.HF_HUB_CACHE,
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "core"))),
        "COLUMNS": "250",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "pam_plugins", *arguments],
        env=kept | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


@pytest.mark.e2e
def test_a_killed_download_goes_on(hub: FakeHub, files: dict[str, bytes]) -> None:
    hub.hold_after = 15 * 2**20
    running = process(hub, "download", "PAM-1.5B")
    assert hub.silent.wait(120)
    until = time.monotonic() + 30
    while (not partial(files).exists() or partial(files).stat().st_size < KEPT) and time.monotonic() < until:
        time.sleep(0.05)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    hub.hold_after = None
    hub.go_on.set()
    listed = process(hub, "models").communicate()[0]
    assert "PAM-1.5B: only in part on this machine; fetch the rest with: pam download PAM-1.5B" in listed
    hub.sent = 0
    hub.requests.clear()
    again = process(hub, "download", "PAM-1.5B")
    _, err = again.communicate()
    assert again.returncode == 0, err
    assert "PAM-1.5B is in" in err
    assert hub.asked(WEIGHTS) == [Request("GET", f"cdn/{WEIGHTS}", KEPT)]
    assert hub.sent == len(files[WEIGHTS]) - KEPT
    hub.requests.clear()
    row = next(line for line in process(hub, "models").communicate()[0].splitlines() if line.startswith("pam-1.5b"))
    assert "NOT READY" not in row
    assert load_pretrained("PAM-1.5B").tokenizer is not None
    assert not hub.requests


@pytest.mark.e2e
def test_a_broken_download_ends_with_one_line(hub: FakeHub) -> None:
    hub.break_after = 15 * 2**20
    running = process(hub, "download", "PAM-1.5B")
    _, err = running.communicate()
    assert running.returncode == 1
    assert err.splitlines()[-1].startswith(f"pam: {REPO}: the download broke off (")
    assert "Traceback" not in err


@pytest.mark.e2e
def test_two_at_once_share_one_transfer(hub: FakeHub, files: dict[str, bytes]) -> None:
    hub.hold_after = 2**20
    running = [process(hub, "download", "PAM-1.5B") for _ in range(2)]
    until = time.monotonic() + 120
    while sum(request.path == API for request in hub.requests) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    hub.go_on.set()
    assert [each.communicate()[1] and each.returncode for each in running] == [0, 0]
    assert len(hub.asked(WEIGHTS)) == 1
    assert (find("PAM-1.5B") / "model.safetensors").read_bytes() == files[WEIGHTS]


@pytest.mark.e2e
def test_a_stopped_download_says_that_it_goes_on(hub: FakeHub) -> None:
    hub.hold_after = 2**20
    running = process(hub, "download", "PAM-1.5B")
    assert hub.silent.wait(120)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate()
    assert running.returncode == 130
    assert err.splitlines()[-1] == "pam: stopped; the same command goes on from there."
