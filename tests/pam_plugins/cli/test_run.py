"""Runs: jobs from files of prompts, failures that stay with their picture, and memory that does not grow."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import psutil
import pytest

from pam_core.errors import NotFoundError, PromptError, UnsupportedError
from pam_core.masks import Mask
from pam_core.media.images import read_picture
from pam_core.types import Perception, Picture, Prompt
from pam_plugins.api import perceive
from pam_plugins.datasets.contracts import Job, Result, Sink
from pam_plugins.datasets.jsonl import JsonLinesSink, read_results
from pam_plugins.datasets.prompts import PromptsSource
from pam_plugins.options import Options
from pam_plugins.pipeline import READ_AHEAD, run
from tests.factories import FakePlugin, shapes, write_picture, write_pictures


def write_lines(path: Path, *lines: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    path.write_text(text, encoding="utf-8")
    return path


def read_jobs(path: Path, images: Sequence[Path] = ()) -> list[Job]:
    return list(PromptsSource(path, images).jobs())


# Files of prompts


def test_pictures_are_relative_to_the_file_and_in_order_of_first_mention(tmp_path: Path) -> None:
    mask = Mask.from_array(np.eye(4, dtype=bool))
    path = write_lines(
        tmp_path / "prompts" / "p.jsonl",
        {"image": "b.png", "points": [[1, 2]]},
        {"image": "../a.png", "box": [1, 2, 3, 4], "note": "kept out"},
        {"image": "b.png", "points": [[1, 2], [3, 4, 0]], "box": None, "mask": None},
        {"image": str(tmp_path / "c.png"), "mask": mask.to_coco()},
        {"image": "猫 1.png", "points": [[0, 0, 1]]},
    )
    folder = tmp_path / "prompts"
    assert read_jobs(path) == [
        Job(folder / "b.png", (Prompt.at(1, 2), Prompt(((1, 2), (3, 4)), (1, 0)))),
        Job(folder / "../a.png", (Prompt(box=(1, 2, 3, 4)),)),
        Job(tmp_path / "c.png", (Prompt(mask=mask),)),
        Job(folder / "猫 1.png", (Prompt.at(0, 0),)),
    ]


def test_one_picture_named_needs_no_mention(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "p.jsonl", {"points": [[1, 2]]}, {"points": [[3, 4]]})
    assert read_jobs(path, [Path("cat.png")]) == [Job(Path("cat.png"), (Prompt.at(1, 2), Prompt.at(3, 4)))]


@pytest.mark.parametrize("images", [[], [Path("a.png"), Path("b.png")]])
def test_otherwise_the_picture_has_to_be_said(tmp_path: Path, images: list[Path]) -> None:
    path = write_lines(tmp_path / "p.jsonl", {"points": [[1, 2]]})
    with pytest.raises(PromptError, match=r'p\.jsonl, line 1: got no "image" and \d pictures'):
        read_jobs(path, images)


@pytest.mark.parametrize("ending", ["\n", "\r\n", ""])
def test_empty_lines_and_any_line_ending_are_fine(tmp_path: Path, ending: str) -> None:
    line = '{"image": "a.png", "points": [[1, 2]]}'
    path = tmp_path / "p.jsonl"
    path.write_bytes(f"\n  \n{line}\r\n\t\n\n{line}{ending}".encode())
    assert read_jobs(path) == [Job(tmp_path / "a.png", (Prompt.at(1, 2),) * 2)]


def test_a_byte_order_mark_is_fine(tmp_path: Path) -> None:
    """Some editors write one."""
    path = tmp_path / "p.jsonl"
    path.write_text('{"image": "a.png", "points": [[1, 2]]}\n', encoding="utf-8-sig")
    assert read_jobs(path) == [Job(tmp_path / "a.png", (Prompt.at(1, 2),))]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85"])
def test_only_newlines_end_a_line(tmp_path: Path, separator: str) -> None:
    """JSON may hold Unicode's other line separators as they are, in names and notes."""
    line = json.dumps({"image": f"a{separator}b.png", "points": [[1, 2]]}, ensure_ascii=False)
    assert read_jobs(write_lines(tmp_path / "p.jsonl", line)) == [
        Job(tmp_path / f"a{separator}b.png", (Prompt.at(1, 2),))
    ]


BAD_LINES: dict[str, object] = {
    "not json": "{image: a.png}",
    "cut short": '{"image": "a.png", "points": [[1,',
    "a number": "3",
    "a list": "[1, 2]",
    "null": "null",
    "text": '"a.png"',
    "no prompt": {"image": "a.png"},
    "image a number": {"image": 3, "points": [[1, 2]]},
    "image null": {"image": None, "points": [[1, 2]]},
    "points not pairs": {"image": "a.png", "points": [1, 2]},
    "points of one number": {"image": "a.png", "points": [[1]]},
    "points of words": {"image": "a.png", "points": [["a", "b"]]},
    "points a mapping": {"image": "a.png", "points": {"x": 1}},
    "points infinite": '{"image": "a.png", "points": [[1e999, 2]]}',
    "points beyond floats": '{"image": "a.png", "points": [[1' + "0" * 400 + ", 2]]}",
    "points NaN": '{"image": "a.png", "points": [[NaN, 2]]}',
    "only background": {"image": "a.png", "points": [[1, 2, 0]]},
    "label 2": {"image": "a.png", "points": [[1, 2, 2]]},
    "box of three": {"image": "a.png", "box": [1, 2, 3]},
    "box a number": {"image": "a.png", "box": 3},
    "box inverted": {"image": "a.png", "box": [3, 3, 1, 1]},
    "mask a path": {"image": "a.png", "mask": "mask.png"},
    "mask of wrong length": {"image": "a.png", "mask": {"size": [2, 2], "counts": [3]}},
    "mask with negative run": {"image": "a.png", "mask": {"size": [2, 2], "counts": [-1, 5]}},
    "mask empty": {"image": "a.png", "mask": {"size": [2, 2], "counts": [4]}},
    "nested too deep": "[" * 100_000,
}


@pytest.mark.parametrize("line", BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_line_is_named(tmp_path: Path, line: object) -> None:
    path = write_lines(tmp_path / "p.jsonl", {"image": "a.png", "points": [[1, 2]]}, "", line)
    with pytest.raises(PromptError, match=r"p\.jsonl, line 3: "):
        read_jobs(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    latin = tmp_path / "latin.jsonl"
    latin.write_bytes('{"image": "käse.png"}'.encode("latin-1"))
    for path in (tmp_path / "none.jsonl", tmp_path, latin):
        with pytest.raises(PromptError, match="wanted a JSON Lines file of prompts"):
            read_jobs(path)


# Runs


def all_of(
    jobs: Sequence[Job], fake: FakePlugin, options: Options = Options(), sinks: Sequence[Sink] = ()
) -> tuple[list[Perception], list[Result]]:
    results = list(run(jobs, sinks, fake.model, options))
    return [result.perception for result in results], results


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    return write_pictures(tmp_path / "pictures", 4)


def test_a_failing_picture_is_recorded_and_the_rest_is_done(
    tmp_path: Path, pictures: list[Path], fake: FakePlugin
) -> None:
    pictures[1].write_bytes(pictures[1].read_bytes()[:100])
    pictures[2].unlink()
    out = tmp_path / "out.jsonl"
    with closing(JsonLinesSink(out)) as sink:
        found, _ = all_of([Job(path) for path in pictures], fake, sinks=[sink])
    assert [p.image for p in found] == [str(path) for path in pictures]
    assert [p.error is None for p in found] == [True, False, False, True]
    assert "damaged or cut short" in str(found[1].error)
    assert "no such file" in str(found[2].error)
    assert all(p.regions for p in (found[0], found[3]))
    assert not found[1].regions
    assert len({p.run for p in found}) == 1
    assert list(read_results(out)) == found


def test_a_prompt_outside_one_of_several_pictures(tmp_path: Path, fake: FakePlugin) -> None:
    paths = [write_picture(tmp_path / f"{width}.png", shapes(width, 40, 2)[0]) for width in (100, 50, 80)]
    found, _ = all_of([Job(path, (Prompt.at(10, 10), Prompt.at(70, 10))) for path in paths], fake)
    assert [p.error is None for p in found] == [True, False, True]
    assert "Got the point (70, 10) outside the picture" in str(found[1].error)
    assert (found[1].width, found[1].height) == (50, 40)
    assert fake.model.embeds == 2


def test_what_is_found_is_right(tmp_path: Path, fake: FakePlugin) -> None:
    picture, known = shapes(120, 90, 4)
    path = write_picture(tmp_path / "a.png", picture)
    prompts = [Prompt.at(*shape.centre) for shape in known] + [Prompt(box=shape.box) for shape in known]
    (found,), _ = all_of([Job(path, tuple(prompts))], fake, Options(languages=("en", "zh")))
    assert [region.label for region in found.regions] == [shape.colour for shape in known] * 2
    assert [region.prompt for region in found.regions] == prompts
    for region, shape in zip(found.regions, known * 2, strict=True):
        assert np.array_equal(region.mask.array, shape.mask)
        assert set(region.texts) == {"label", "brief"}  # what it can say in both languages, `text` left out
        assert set(region.texts["label"]) == {"en", "zh"}
    assert set(found.seconds) == {"read", "embed", "segment", "describe"}


def test_a_finished_picture_is_not_done_again(tmp_path: Path, pictures: list[Path], fake: FakePlugin) -> None:
    jobs = [Job(path) for path in pictures]
    out = tmp_path / "out.jsonl"
    with closing(JsonLinesSink(out)) as sink:
        first, _ = all_of(jobs[:2], fake, sinks=[sink])
    before = fake.model.embeds
    with closing(JsonLinesSink(out)) as sink:
        again, results = all_of(jobs, fake, sinks=[sink])
    assert [result.resumed for result in results] == [True, True, False, False]
    assert again[:2] == first
    assert fake.model.embeds == before + 2
    assert len(list(read_results(out))) == 4


OTHERS = {
    "tasks": (Options(tasks=("label",)), ()),
    "languages": (Options(languages=("zh",)), ()),
    "postprocess": (Options(postprocess=("shout",)), ()),
    "prompts": (Options(), (Prompt.at(1, 1),)),
    "other prompts": (Options(), (Prompt.at(1, 2),)),
}


@pytest.mark.parametrize(("options", "prompts"), OTHERS.values(), ids=OTHERS)
def test_what_is_asked_otherwise_is_done_again(
    tmp_path: Path, pictures: list[Path], fake: FakePlugin, options: Options, prompts: tuple[Prompt, ...]
) -> None:
    with closing(JsonLinesSink(tmp_path / "out.jsonl")) as sink:
        all_of([Job(pictures[0])], fake, sinks=[sink])
        _, results = all_of([Job(pictures[0], prompts)], fake, options, sinks=[sink])
        assert not results[0].resumed
        _, results = all_of([Job(pictures[0], prompts)], fake, options, sinks=[sink])
        assert results[0].resumed


class Keeper:
    """A sink that keeps the perceptions and the shapes of the pictures."""

    def __init__(self) -> None:
        self.kept: list[tuple[Perception, tuple[int, ...] | None]] = []

    def write(self, results: Sequence[Result]) -> None:
        for result in results:
            picture = result.picture()
            self.kept.append((result.perception, None if picture is None else picture.shape))

    def close(self) -> None: ...


def test_sinks_get_every_picture_new_resumed_and_failed(
    tmp_path: Path, pictures: list[Path], fake: FakePlugin
) -> None:
    jobs = [Job(path) for path in pictures]
    with closing(JsonLinesSink(tmp_path / "out.jsonl")) as sink:
        all_of(jobs[:2], fake, sinks=[sink])
        pictures[1].unlink()
        pictures[2].write_bytes(b"no picture")
        keeper = Keeper()
        found, _ = all_of(jobs, fake, sinks=[sink, keeper])
    assert [perception for perception, _ in keeper.kept] == found
    assert [shape for _, shape in keeper.kept] == [(36, 48, 3), None, None, (36, 48, 3)]
    assert [p.error is None for p in found] == [True, True, False, True]


def test_post_processors_are_applied_before_anyone_sees_it(
    tmp_path: Path, pictures: list[Path], fake: FakePlugin
) -> None:
    with closing(JsonLinesSink(tmp_path / "out.jsonl")) as sink:
        found, _ = all_of([Job(pictures[0])], fake, Options(postprocess=("shout",)), sinks=[sink])
    labels = {region.label for region in found[0].regions}
    assert labels
    assert all(label and label.isupper() for label in labels)
    assert fake.perceived == found == list(read_results(tmp_path / "out.jsonl"))


def test_the_hook_is_told_of_good_and_failed_pictures_once(
    tmp_path: Path, pictures: list[Path], fake: FakePlugin
) -> None:
    pictures[1].write_bytes(b"no picture")
    jobs = [Job(path) for path in pictures]
    with closing(JsonLinesSink(tmp_path / "out.jsonl")) as sink:
        found, _ = all_of(jobs, fake, sinks=[sink])
        assert fake.perceived == found
        all_of(jobs, fake, sinks=[sink])
    assert [p.image for p in fake.perceived] == [str(path) for path in (*pictures, pictures[1])]


@pytest.mark.parametrize("options", [Options(proposer="nobody"), Options(postprocess=("nobody",))])
def test_unknown_names_are_found_out_before_the_model_works(
    pictures: list[Path], fake: FakePlugin, options: Options
) -> None:
    with pytest.raises(NotFoundError, match="nobody"):
        perceive(pictures[0], model=fake.model, options=options)
    assert fake.model.embeds == 0


@pytest.mark.parametrize(
    "options",
    [Options(tasks=("poem",)), Options(languages=("fr",)), Options(tasks=("explanation",), languages=("zh",))],
)
def test_what_the_model_cannot_do_is_found_out_before_it_works(
    pictures: list[Path], fake: FakePlugin, options: Options
) -> None:
    with pytest.raises(UnsupportedError):
        perceive(pictures[0], model=fake.model, options=options)
    assert fake.model.embeds == 0


def test_no_language_at_all_is_refused(pictures: list[Path], fake: FakePlugin) -> None:
    with pytest.raises(UnsupportedError):
        perceive(pictures[0], model=fake.model, options=Options(languages=()))


def test_a_picture_changed_in_place_does_not_change_what_was_seen(fake: FakePlugin) -> None:
    """A camera's buffer is overwritten by each frame; what the cache holds of the first must stay as it was."""
    frame, known = shapes(120, 90, 2)
    first = frame.copy()
    click = [Prompt.at(*known[0].centre)]
    assert perceive(frame, click, model=fake.model).regions[0].label == "red"
    frame[:] = (20, 20, 220)
    assert perceive(frame, click, model=fake.model).regions[0].label == "blue"
    assert perceive(first, click, model=fake.model).regions[0].label == "red"


def test_ten_thousand_prompts_on_one_picture(tmp_path: Path, fake: FakePlugin) -> None:
    picture, _ = shapes(160, 120, 7)
    path = write_picture(tmp_path / "a.png", picture)
    rng = np.random.default_rng(1)
    points = rng.uniform((0, 0), (160, 120), (10_000, 2)).round(3).tolist()
    lines = write_lines(tmp_path / "p.jsonl", *({"image": "a.png", "points": [point]} for point in points))
    process = psutil.Process()
    gc.collect()
    before = process.memory_info().rss
    jobs = read_jobs(lines)
    with closing(JsonLinesSink(tmp_path / "out.jsonl")) as sink:
        (found,), _ = all_of(jobs, fake, sinks=[sink])
        grown = process.memory_info().rss - before
        assert grown < 200 * 2**20
        _, (again,) = all_of(jobs, fake, sinks=[sink])
    assert again.resumed
    assert again.perception == found
    assert path.exists()
    assert fake.model.embeds == 1
    assert len(found.regions) == 10_000
    assert [region.prompt.points[0] for region in found.regions if region.prompt] == [tuple(p) for p in points]


# Reading ahead, jobs that cannot be done, masks that stay


def test_pictures_are_read_ahead_of_the_model_and_only_a_few(
    fake: FakePlugin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def counted(path: Path) -> Picture:
        read.append(path.name)
        return read_picture(path)

    monkeypatch.setattr("pam_plugins.pipeline.read_picture", counted)
    paths = write_pictures(tmp_path, 12)
    taken: list[Path] = []

    def jobs() -> Iterator[Job]:
        for path in paths:
            taken.append(path)
            yield Job(path, (Prompt.at(1, 1),))

    results = run(jobs(), [], fake.model, Options())
    next(results)
    assert len(taken) == READ_AHEAD + 1
    for done, _ in enumerate(results, 2):
        assert len(read) <= done + READ_AHEAD
    assert read == [path.name for path in paths]


def test_a_job_with_an_error_fails_without_a_look_at_its_picture(fake: FakePlugin, tmp_path: Path) -> None:
    job = Job(tmp_path / "gone.png", id="7", error="the box has no area")
    [result] = run([job], [], fake.model, Options())
    assert result.perception.error == f"{tmp_path / 'gone.png'}: the box has no area"
    assert fake.model.embeds == 0


def test_a_mask_stays_as_it_is_where_it_is_not_to_be_redrawn(fake: FakePlugin) -> None:
    picture, known = shapes(120, 90, 3)
    part = known[0].mask.copy()
    part[:, : known[0].centre[0]] = False
    prompts = [Prompt.from_mask(part), Prompt(box=known[1].box)]
    kept = perceive(picture, prompts, model=fake.model, options=Options(keep_masks=True))
    assert [region.label for region in kept.regions] == ["red", "green"]
    np.testing.assert_array_equal(kept.regions[0].mask.array, part)
    np.testing.assert_array_equal(kept.regions[1].mask.array, known[1].mask)
    assert fake.model.segments == 1
    drawn = perceive(picture, prompts, model=fake.model)
    assert fake.model.segments == 3
    assert drawn.run != kept.run
