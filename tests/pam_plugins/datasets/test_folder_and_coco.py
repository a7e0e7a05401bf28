"""Pictures of a folder, and COCO files with all that can be wrong in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pam_core.errors import DatasetError
from pam_core.masks import Mask
from pam_core.types import Prompt
from pam_plugins.datasets.coco import CocoSourceFormat
from pam_plugins.datasets.contracts import Job
from pam_plugins.datasets.folder import FolderSourceFormat
from tests.factories import write_pictures


class TestFolder:
    def test_pictures_in_order_of_name(self, tmp_path: Path) -> None:
        paths = write_pictures(tmp_path, 3)
        (tmp_path / "notes.txt").write_text("no picture")
        write_pictures(tmp_path / "deeper", 1)
        source = FolderSourceFormat().open(str(tmp_path))
        assert len(source) == 3
        assert list(source.jobs()) == [Job(path) for path in paths]
        assert [job.id for job in source.jobs()] == [str(path) for path in paths]

    def test_without_pictures(self, tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match="holds no picture"):
            FolderSourceFormat().open(str(tmp_path))
        with pytest.raises(DatasetError, match="No such file"):
            FolderSourceFormat().open(str(tmp_path / "none"))


IMAGE = {"id": 7, "file_name": "a.png", "width": 40, "height": 30}


def jobs_of(tmp_path: Path, *annotations: dict[str, Any], images: Any = (IMAGE,), address: str = "") -> list[Job]:
    path = tmp_path / "instances.json"
    numbered = [{"id": number, "image_id": 7, **each} for number, each in enumerate(annotations)]
    path.write_text(json.dumps({"images": list(images), "annotations": numbered}))
    source = CocoSourceFormat().open(f"{path}{address}")
    jobs = list(source.jobs())
    assert len(source) == len(jobs)
    return jobs


def square(x1: int, y1: int, x2: int, y2: int) -> Mask:
    array = np.zeros((30, 40), bool)
    array[y1:y2, x1:x2] = True
    return Mask.from_array(array)


class TestCoco:
    def test_boxes_polygons_and_run_lengths_are_prompts(self, tmp_path: Path) -> None:
        rle = square(3, 4, 9, 8)
        (job,) = jobs_of(
            tmp_path,
            {"bbox": [1, 2, 10, 5]},
            {"bbox": [1, 2, 10, 5], "segmentation": [[5, 5, 15, 5, 15, 12, 5, 12]]},
            {"segmentation": rle.to_coco()},
            {"segmentation": {"size": [30, 40], "counts": [5, 10, 1185]}},
            {"bbox": [0, 0, 4, 4], "segmentation": []},
        )
        assert (job.path, job.id, job.error) == (tmp_path / "a.png", "7", None)
        assert job.prompts[0] == Prompt(box=(1, 2, 11, 7))
        assert job.prompts[1] == Prompt(mask=square(5, 5, 15, 12))
        assert job.prompts[2] == Prompt(mask=rle)
        assert job.prompts[3].mask is not None and job.prompts[3].mask.area == 10
        assert job.prompts[4] == Prompt(box=(0, 0, 4, 4))

    def test_polygons_of_one_annotation_are_one_mask(self, tmp_path: Path) -> None:
        (job,) = jobs_of(tmp_path, {"segmentation": [[0, 0, 4, 0, 4, 4, 0, 4], [10, 10, 14, 10, 14, 14, 10, 14]]})
        (prompt,) = job.prompts
        assert prompt.mask is not None and (prompt.mask.area, prompt.mask.box) == (32, (0, 0, 14, 14))

    def test_a_picture_without_annotations_and_annotations_without_a_picture(self, tmp_path: Path) -> None:
        (job,) = jobs_of(tmp_path, {"image_id": 8, "bbox": [0, 0, 4, 4]})
        assert job == Job(tmp_path / "a.png", id="7")

    def test_pictures_in_another_folder(self, tmp_path: Path) -> None:
        (job,) = jobs_of(tmp_path, address=f",{tmp_path / 'pictures'}")
        assert job.path == tmp_path / "pictures" / "a.png"

    def test_a_box_rounded_over_the_edge_is_cut_off_there(self, tmp_path: Path) -> None:
        (job,) = jobs_of(tmp_path, {"bbox": [-0.3, 2, 40.5, 28.4]})
        assert job.prompts == (Prompt(box=(0, 2, 40, 30)),)

    @pytest.mark.parametrize(
        ("annotation", "said"),
        [
            ({"bbox": [1, 2, 0, 5]}, "no area"),
            ({"bbox": [1, 2, "x", 5]}, "could not convert"),
            ({"bbox": [1, 2]}, "not enough values"),
            ({"bbox": [float("nan"), 2, 3, 4]}, "finite"),
            ({}, "it lacks 'bbox'"),
            ({"segmentation": [[1, 2, 3, 4]]}, "at least three points"),
            ({"segmentation": [[1, 2, 3, 4, 5]]}, "at least three points"),
            ({"segmentation": [[0, 0, 99, 0, 99, 99]]}, "outside the picture of 40x30"),
            ({"segmentation": [[0, 0, float("inf"), 0, 9, 9]]}, "no number"),
            ({"segmentation": [["a", 0, 4, 0, 9, 9]]}, "must be real number"),
            ({"segmentation": [7]}, "not subscriptable"),
            ({"segmentation": {"size": [30, 40], "counts": [5]}}, "do not add up"),
            ({"segmentation": {"size": [30, 40], "counts": [1200]}}, "empty mask"),
        ],
    )
    def test_an_annotation_that_is_wrong_costs_its_picture_only(
        self, tmp_path: Path, annotation: dict[str, Any], said: str
    ) -> None:
        other = {**IMAGE, "id": 9, "file_name": "b.png"}
        bad, good = jobs_of(tmp_path, {"bbox": [1, 1, 2, 2]}, annotation, images=[IMAGE, other])
        assert bad.error is not None and "Annotation 1" in bad.error and said in bad.error
        assert bad.prompts == ()
        assert good == Job(tmp_path / "b.png", id="9")

    def test_a_box_outside_is_left_to_the_pictures_own_size(self, tmp_path: Path) -> None:
        (job,) = jobs_of(tmp_path, {"bbox": [30, 20, 50, 50]})
        assert job.error is None
        assert job.prompts == (Prompt(box=(30, 20, 80, 70)),)

    def test_a_polygon_needs_the_pictures_size(self, tmp_path: Path) -> None:
        (job,) = jobs_of(tmp_path, {"segmentation": [[1, 1, 5, 1, 5, 5]]}, images=[{"id": 7, "file_name": "a.png"}])
        assert job.error == "Annotation 0: it lacks 'width'"

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("no json", "is no COCO file"),
            ("[]", "is no COCO file"),
            ("{}", "it lacks 'images'"),
            ('{"images": []}', "lists no picture"),
            ('{"images": [{"id": 1}]}', "it lacks 'file_name'"),
            ('{"images": [{"id": 1, "file_name": 3}]}', "no text"),
            ('{"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}]}', "two pictures have the id 1"),
            ('{"images": [{"id": 1, "file_name": "a"}], "annotations": [{}]}', "it lacks 'image_id'"),
            ("[" * 100_000, "is no COCO file"),
        ],
    )
    def test_a_file_that_is_something_else(self, tmp_path: Path, text: str, said: str) -> None:
        path = tmp_path / "instances.json"
        path.write_text(text)
        with pytest.raises(DatasetError, match=said):
            CocoSourceFormat().open(str(path))

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match="cannot be read"):
            CocoSourceFormat().open(str(tmp_path / "none.json"))
