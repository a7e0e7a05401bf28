"""The example plugin: what its parts do, and that it works when installed the way anyone installs it."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pam_core.contracts import PostProcessor, RegionModel
from pam_core.errors import PromptError, UnsupportedError
from pam_core.questions import Question
from pam_core.types import Perception, Prompt
from pam_plugins import load_model, perceive
from pam_plugins.datasets.contracts import Job, Result, SinkFormat
from pam_plugins.options import Options
from pam_plugins.plugins import Plugins, postprocessor, sink, tasks
from tests.pam_plugins.plugins.fakes import ROOT, environment, write_plugin

EXAMPLE = ROOT / "examples" / "pam-colour-blob"
PHOTO = ROOT / "tests" / "data" / "photos" / "fruits.jpg"
LIME = (slice(121, 303), slice(346, 512))
"""Rows and columns of the green lime on the photo, clicked on at 430, 190."""


@pytest.fixture
def example(no_plugins: Plugins, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    monkeypatch.syspath_prepend(str(EXAMPLE))
    import pam_colour_blob

    with no_plugins.registered(pam_colour_blob, "colour-blob"):
        yield pam_colour_blob


@pytest.fixture
def picture() -> np.ndarray:
    """White, with a red square and, apart from it, a smaller red and a blue one."""
    picture = np.full((60, 100, 3), 255, np.uint8)
    picture[10:40, 10:40] = (200, 30, 30)
    picture[10:20, 60:70] = (200, 30, 30)
    picture[30:50, 60:90] = (30, 60, 200)
    return picture


def region_at(picture: np.ndarray, prompt: Prompt):  # type: ignore[no-untyped-def]
    (region,) = perceive(picture, [prompt], model="colour-blob", options=Options(languages=("en", "zh"))).regions
    return region


@pytest.mark.usefixtures("example")
def test_its_parts_keep_the_contracts() -> None:
    assert isinstance(load_model("colour-blob"), RegionModel)
    assert isinstance(sink("csv"), SinkFormat)
    assert isinstance(postprocessor("no-specks"), PostProcessor)
    assert set(tasks()["mean-colour"].questions) == {"en", "zh"}


@pytest.mark.usefixtures("example")
def test_a_click_takes_the_connected_pixels_of_that_colour(picture: np.ndarray) -> None:
    region = region_at(picture, Prompt.at(20, 20))
    assert region.box == (10, 10, 40, 40)
    assert region.mask.area == pytest.approx(900, abs=20), "smoothing may round the corners"
    assert region.texts["mean-colour"] == {"en": "#c81e1e (red)", "zh": "#c81e1e（红色）"}


@pytest.mark.usefixtures("example")
def test_several_clicks_are_one_region_and_background_clicks_take_away(picture: np.ndarray) -> None:
    both = region_at(picture, Prompt(points=((20, 20), (65, 15))))
    assert both.box == (10, 10, 70, 40)
    less = region_at(picture, Prompt(points=((20, 20), (65, 15)), labels=(1, 0)))
    assert less.box == (10, 10, 40, 40)


@pytest.mark.usefixtures("example")
def test_a_box_takes_its_dominant_colour_and_bounds_a_click(picture: np.ndarray) -> None:
    region = region_at(picture, Prompt(box=(61.0, 31.0, 95.5, 49.0)))
    assert region.box[:2] == (61, 31)
    assert region.text("mean-colour") == "#1e3cc8 (blue)"
    bounded = region_at(picture, Prompt(points=((20, 20),), box=(15, 15, 30, 30)))
    assert bounded.box == (15, 15, 30, 30)


@pytest.mark.usefixtures("example")
def test_a_mask_is_taken_as_it_is(picture: np.ndarray) -> None:
    mask = np.zeros(picture.shape[:2], bool)
    mask[12:14, 62:68] = True
    region = region_at(picture, Prompt.from_mask(mask))
    assert (region.mask.array == mask).all()


@pytest.mark.usefixtures("example")
def test_a_prompt_that_leaves_nothing_gives_an_empty_region(picture: np.ndarray) -> None:
    mask = np.zeros(picture.shape[:2], bool)
    mask[:5, :5] = True
    nothing = Prompt(box=(50, 50, 60, 60), mask=Prompt.from_mask(mask).mask)
    region = region_at(picture, nothing)
    assert region.mask.area == 0
    assert region.text("mean-colour") == ""


@pytest.mark.usefixtures("example")
def test_it_refuses_what_it_cannot_do(picture: np.ndarray) -> None:
    model = load_model("colour-blob")
    (embedding,) = model.embed([picture])
    with pytest.raises(PromptError):
        model.segment([(embedding, Prompt.at(1, 1)), (embedding, Prompt.at(100, 10))])
    ((region,),) = model.segment([(embedding, Prompt.at(1, 1))])
    with pytest.raises(UnsupportedError):
        model.describe([Question("label", "en", embedding, region)])
    with pytest.raises(UnsupportedError):
        model.describe([Question("mean-colour", "fr", embedding, region)])
    with pytest.raises(UnsupportedError):
        model.segment([(SimpleNamespace(width=9, height=9, nbytes=1), Prompt.at(1, 1))])
    with pytest.raises(UnsupportedError):
        model.open_tracker()


@pytest.mark.usefixtures("example")
def test_no_specks_drops_small_regions_only(picture: np.ndarray) -> None:
    mask = np.zeros(picture.shape[:2], bool)
    mask[0, :2] = True
    prompts = [Prompt.from_mask(mask), Prompt.at(20, 20)]
    kept = perceive(picture, prompts, model="colour-blob", options=Options(postprocess=("no-specks",))).regions
    assert [region.prompt for region in kept] == prompts[1:]


@pytest.mark.usefixtures("example")
def test_the_csv_prefers_a_label_and_has_no_row_for_a_failed_picture(tmp_path: Path, picture: np.ndarray) -> None:
    perception = perceive(picture, [Prompt.at(20, 20)], model="colour-blob", name="a,b.png")
    labelled = perception.regions[0].with_texts({"label": {"en": 'a "square"'}})
    others = (
        Perception("c.png", 100, 60, perception.model, (labelled,)),
        Perception("lost.png", 0, 0, perception.model, error="no such file"),
    )
    table = sink("csv").open(str(tmp_path))
    table.write([Result(Job(Path(each.image)), each) for each in (perception, *others)])
    table.close()
    rows = read_csv(tmp_path / "regions.csv")
    assert [(row["image"], row["label"]) for row in rows] == [("a,b.png", "#c81e1e (red)"), ("c.png", 'a "square"')]


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that pip installed the example into."""
    folder = tmp_path_factory.mktemp("installed")
    source = folder / "source"  # a copy, since building leaves files beside what it builds
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *offline, "--target", str(folder / "site"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


def pam(*arguments: str, cwd: Path, path: tuple[Path, ...], **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pam_plugins", *arguments],
        cwd=cwd,
        env=environment(*path, **variables),
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )


PERCEIVE = ("perceive", str(PHOTO), "--point", "430,190", "--model", "colour-blob")


@pytest.mark.e2e
def test_installed_it_is_listed(installed: Path, tmp_path: Path) -> None:
    models = pam("models", cwd=tmp_path, path=(installed,))
    assert models.returncode == 0, models.stderr
    (line,) = [line for line in models.stdout.splitlines() if line.startswith("colour-blob")]
    assert "box, mask, point" in line
    assert "mean-colour (en/zh)" in line
    plugins = pam("plugins", cwd=tmp_path, path=(installed,))
    assert plugins.returncode == 0, plugins.stderr
    (line,) = [line for line in plugins.stdout.splitlines() if line.startswith("colour-blob")]
    assert line.split()[1:4] == ["pam-colour-blob", "0.1.0", "loaded"]
    for thing in ("mean-colour", "csv", "no-specks"):
        assert thing in plugins.stdout.split(line)[1]


@pytest.mark.e2e
def test_installed_it_does_the_whole_job(installed: Path, tmp_path: Path) -> None:
    asked = ("--task", "mean-colour", "--lang", "en,zh", "--postprocess", "no-specks")
    saved = ("--out", "r.jsonl", "--save", "out", "--export", "csv")
    done = pam(*PERCEIVE, *asked, *saved, cwd=tmp_path, path=(installed,))
    assert done.returncode == 0, done.stderr
    assert "(green)" in done.stdout
    assert "（绿色）" in done.stdout
    assert "1 pictures, 1 regions" in done.stderr

    (line,) = (tmp_path / "r.jsonl").read_text(encoding="utf-8").splitlines()
    perception = Perception.from_json(json.loads(line))
    assert (perception.image, perception.width, perception.height) == (str(PHOTO), 512, 480)
    assert perception.model.name == "colour-blob"
    (region,) = perception.regions
    assert region.prompt == Prompt.at(430, 190)
    mask = region.mask.array
    assert mask[190, 430]
    assert mask[LIME].sum() > 0.9 * mask.sum()
    assert mask[LIME].mean() > 0.5
    assert set(region.texts) == {"mean-colour"}

    assert [path.name for path in (tmp_path / "out").iterdir()] == ["regions.csv"]
    (row,) = read_csv(tmp_path / "out" / "regions.csv")
    assert row == {
        "image": str(PHOTO),
        "label": region.text("mean-colour"),
        **dict(zip(("x1", "y1", "x2", "y2"), (str(int(edge)) for edge in region.box), strict=True)),
        "area": str(region.mask.area),
        "model": "colour-blob@1",
    }

    again = pam(*PERCEIVE, *asked, *saved, cwd=tmp_path, path=(installed,))
    assert again.returncode == 0, again.stderr
    assert "taken over from an earlier run" in again.stderr
    assert (tmp_path / "r.jsonl").read_text(encoding="utf-8") == line + "\n"
    assert read_csv(tmp_path / "out" / "regions.csv") == [row]


@pytest.mark.e2e
def test_left_out_by_pam_plugins_it_is_not_used(installed: Path, tmp_path: Path) -> None:
    plugins = pam("plugins", cwd=tmp_path, path=(installed,), PAM_PLUGINS="")
    (line,) = [line for line in plugins.stdout.splitlines() if line.startswith("colour-blob")]
    assert "left out by PAM_PLUGINS" in line
    done = pam(*PERCEIVE, cwd=tmp_path, path=(installed,), PAM_PLUGINS="")
    assert done.returncode == 2
    assert "No model is called 'colour-blob'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.e2e
def test_a_broken_plugin_is_named_and_the_others_work(installed: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    write_plugin(broken, "wreck", "pam_wreck", "import a_package_that_is_not_there\n", "pam-wreck")
    plugins = pam("plugins", cwd=tmp_path, path=(broken, installed))
    assert plugins.returncode == 0, plugins.stderr
    (line,) = [line for line in plugins.stdout.splitlines() if line.startswith("wreck")]
    assert "pam-wreck 1.0" in line
    assert "failed: ModuleNotFoundError: No module named 'a_package_that_is_not_there'" in line
    done = pam(*PERCEIVE, cwd=tmp_path, path=(broken, installed))
    assert done.returncode == 0, done.stderr
    assert "(green)" in done.stdout
    assert "Traceback" not in done.stderr
