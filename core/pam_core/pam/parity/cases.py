"""Run a model on recorded cases, stage by stage, and compare it with the reference.

A folder of cases is a checkpoint with `cases.json` and a file of recorded tensors a case (`comparison` says of what
form).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pam_core.contracts import ModelInfo
from pam_core.errors import CheckpointError
from pam_core.pam.checkpoint import load_pretrained, released_key
from pam_core.pam.clips import FrameTokens, clip_sequence, sample_frames
from pam_core.pam.generation import Branch, Decoder
from pam_core.pam.language import prefill
from pam_core.pam.model import FIRST_FOLD, LATER_FOLD, PamModel
from pam_core.pam.parity import kernels
from pam_core.pam.parity.comparison import NORM, CaseReport, compare, compare_half
from pam_core.pam.prompt_tensors import prompt_batches
from pam_core.pam.region_model import PamRegionModel
from pam_core.pam.tracking import SamTracker, TrackingRules
from pam_core.pam.training.conversations import IMAGE, PLACEHOLDER
from pam_core.pam.training.loss import loss_and_logits, make_batch, region_sequences
from pam_core.pam.vision import (
    Decoded,
    ImageFeatures,
    PromptTensors,
    VisionTower,
    full_size,
    preprocess,
    stability,
    stable_choice,
)
from pam_core.pam.weights import read_weights
from pam_core.questions import Generation, Question, ask, with_answers
from pam_core.types import Picture, Prompt

HALF = "_bf16"
TASK = "question"


def run_cases(folder: Path, names: Sequence[str] | None = None, device: str = "cpu") -> Iterator[CaseReport]:
    """Run the named cases of a folder, or all of them. Raises CheckpointError where there are no such cases."""
    try:
        cases = json.loads((folder / "cases.json").read_text(encoding="utf-8"))["cases"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder}: holds no cases.json with cases ({error}); wanted recorded cases."
        ) from error
    unknown = sorted(set(names or ()) - set(cases))
    if unknown:
        raise CheckpointError(f"{folder}: has no case {', '.join(unknown)}; it has {', '.join(cases)}.")
    models: dict[torch.dtype, PamModel] = {}
    same = kernels.are_recorded(device)
    for name in names or cases:
        run = _runner(cases[name])
        if run is None:
            kinds = ", ".join(cases[name].get("types", ()))
            yield CaseReport(name, error=f"cases of {kinds or 'this kind'} cannot be run yet; leave it out (--cases)")
            continue
        dtype = torch.bfloat16 if name.endswith(HALF) else torch.float32
        if dtype not in models:
            models[dtype] = load_pretrained(folder, device=device, dtype=dtype)
            if same:
                kernels.attend_as_recorded(models[dtype])
        recorded = _recorded(folder, name, cases[name])
        got, texts = run(folder, cases[name], models[dtype], recorded)
        if dtype == torch.float32:
            texts_recorded = [text.strip() for text in cases[name].get("text", ())]
            yield compare(name, got, recorded, texts is None or texts == texts_recorded, same)
        else:
            yield compare_half(name, got, recorded, _recorded(folder, name.removesuffix(HALF), {}))


Outcome = tuple[dict[str, Tensor], list[str] | None]
"""Tensors by the names they are recorded under, and the answers."""

Runner = Callable[[Path, Mapping[str, Any], PamModel, Mapping[str, Tensor]], Outcome]


def _runner(case: Mapping[str, Any]) -> Runner | None:
    if "stability" in case:
        return _stability_case
    if "sources" in case:
        return _training_case
    return {("image",): _image_case, ("video",): _video_case}.get(tuple(sorted(set(case.get("types", ())))))


def _recorded(folder: Path, name: str, case: Mapping[str, Any]) -> dict[str, Tensor]:
    """A case's tensors, and the norms of gradients that stand beside it."""
    norms = {f"{NORM}{key}": torch.tensor([value]) for key, value in case.get("grad_norms", {}).items()}
    return read_weights(folder / f"{name}.safetensors") | norms


@torch.inference_mode()
def _image_case(folder: Path, case: Mapping[str, Any], model: PamModel, _: Mapping[str, Tensor]) -> Outcome:
    vision, size = model.vision, model.config.vision.image_size
    pictures = [_picture(folder / row[0]) for row in case["images"]]
    prompts = [_prompt(folder, *given) for given in zip(case["visual_prompts"], case["vp_labels"], strict=True)]
    got: dict[str, Tensor] = {}
    together: dict[str, list[Tensor]] = {}
    for row, (picture, prompt) in enumerate(zip(pictures, prompts, strict=True)):
        height, width = picture.shape[:2]
        pixels = preprocess(picture, size)[None]
        features = vision.encode(pixels)
        ((_rows, tensors),) = prompt_batches([prompt], width, height, size)
        decoded, logits, presence = vision.answer_prompts(features, tensors)
        visual, semantic = model.perceive(decoded)
        stages = _stages(vision, pixels, features, tensors, decoded)
        got.update((f"{stage}.{row}", tensor) for stage, tensor in stages.items())
        stages = {
            "mid_mask_tokens": decoded.stable_tokens,
            "sem_tokens_out": semantic,
            "visual_tokens_out": visual,
            "proj_img": model.image_projector(visual.to(model.dtype)),
            "proj_sem": model.semantic_projector(semantic.to(model.dtype)),
            "regions": model.project(visual, semantic),
            "mask_logits": full_size(logits, height, width),
            "object_scores": presence[:, 0],
        }
        for stage, tensor in stages.items():
            together.setdefault(stage, []).append(tensor)
    joined = {stage: torch.cat(tensors) for stage, tensors in together.items()}
    got.update({f"{stage}.0": tensor for stage, tensor in joined.items()}, **joined)
    answers, _texts = _read_and_answer(case, model, joined["regions"])
    return {**got, **answers}, _through_the_contract(case, model, pictures, prompts)


@torch.inference_mode()
def _video_case(folder: Path, case: Mapping[str, Any], model: PamModel, _: Mapping[str, Tensor]) -> Outcome:
    """One object through one clip, as the reference tracks it."""
    pictures = [_picture(folder / name) for name in case["images"][0]]
    prompt = _prompt(folder, case["visual_prompts"][0], case["vp_labels"][0])
    height, width = pictures[0].shape[:2]
    vision, size = model.vision, model.config.vision.image_size
    ((_rows, tensors),) = prompt_batches([prompt], width, height, size)
    tracker = SamTracker(vision, TrackingRules(round_prompted=True, clip_length=len(pictures)))
    got: dict[str, Tensor] = {}
    frames, masks, presences = [], [], []
    for index, picture in enumerate(pictures):
        pixels = preprocess(picture, size)[None]
        features = vision.encode(pixels)
        tracked = tracker.step(features) if index else tracker.prompt(features, [1], tensors)
        assert tracked is not None
        given = tensors if index == 0 else PromptTensors(pixels.new_zeros(1, 0, 2), torch.zeros(1, 0).long())
        cells, semantic = model.perceive_cells(tracked.decoded)
        visual = model.perceiver.visual_tokens(cells, LATER_FOLD if index else FIRST_FOLD)
        frames.append(FrameTokens(index, visual[0], semantic[0]))
        masks.append(full_size(tracked.logits, height, width)[0, 0] > 0)
        presences.append(tracked.presence[0, 0])
        stages = _stages(vision, pixels, features, given, tracked.decoded) | {"maskmem": tracked.memory}
        got.update((f"{stage}.{index}", tensor) for stage, tensor in stages.items())
        got[f"mid_mask_tokens.{index}"] = tracked.decoded.stable_tokens
    picked = sample_frames(len(frames))
    for number, index in enumerate(picked):  # of these the reference recorded what the language model was shown
        visual, semantic = frames[index].visual[None], frames[index].semantic[None]
        got[f"mid_mask_tokens.{number}"] = got[f"mid_mask_tokens.{index}"]
        got[f"visual_tokens_out.{number}"], got[f"sem_tokens_out.{number}"] = visual, semantic
        got[f"proj_img.{number}"] = model.image_projector(visual)
        got[f"proj_sem.{number}"] = model.semantic_projector(semantic)
    got["object_scores"] = torch.stack(presences)
    got["video_masks_packed"] = torch.stack(masks)
    shown = [frames[index] for index in picked]
    answers, texts = _read_and_answer(case, model, clip_sequence(model, shown)[None])
    return {**got, **answers}, texts


def _stages(
    vision: VisionTower, pixels: Tensor, features: ImageFeatures, prompts: PromptTensors, decoded: Decoded
) -> dict[str, Tensor]:
    """What SAM 2 computes of one prompt on one picture or frame."""
    sparse, dense = vision.embed_prompts(prompts)
    return {
        "image_in": pixels,
        "fpn0": features.fine[0],
        "fpn1": features.fine[1],
        "fpn2": features.coarse,
        "pos2": features.position,
        "sparse_emb": sparse,
        "dense_emb": dense,
        "pix_feat": decoded.before,
        "dec_masks4": decoded.logits,
        "iou_pred4": decoded.ious,
        "mask_tokens4": decoded.mask_tokens,
        "object_score_logits": decoded.presence,
        "mid_image_embed": decoded.after,
        "low_res_mask": decoded.answer,
        "obj_ptr": vision.object_pointer(decoded),
    }


def _region_model(case: Mapping[str, Any], model: PamModel) -> PamRegionModel:
    """The model with the case's question as its only task."""
    info = ModelInfo("pam", model.revision, "", "", {TASK: frozenset({"en"})})
    return PamRegionModel(model, info, {TASK: {"en": case["question"].removeprefix(f"{PLACEHOLDER}\n")}})


def _read_and_answer(case: Mapping[str, Any], model: PamModel, regions: Tensor) -> Outcome:
    """What the language model reads (B, L, H), and its greedy answers."""
    chat = _region_model(case, model).chat
    after = chat.question_ids(Question(TASK))
    length = len(case["generated"][0])
    reads = [torch.cat([model.embed_ids(chat.before), region]) for region in regions]
    branches = [Branch(prefill(model.language, read, len(after) + length), after, length) for read in reads]
    decoder = Decoder(model.language, (), chat.vocabulary)
    decoder.add(branches)
    logits: list[Tensor] = []
    answers: list[Sequence[int]] = []
    while decoder.running:
        step = decoder.step()
        logits.append(step.logits)
        answers.append(step.ids)
    ids = model.embed_ids(after)
    return {
        "inputs_embeds.0": torch.stack([torch.cat([read, ids]) for read in reads]),
        "step_logits": torch.stack(logits, dim=1),
        "logits_first": logits[0],
        "generated_ids": torch.tensor(answers).T,
        "input_ids": torch.tensor([[*chat.before, IMAGE, *after]] * len(reads)),
    }, [chat.text(branch.answer) for branch in branches]


def _through_the_contract(
    case: Mapping[str, Any], model: PamModel, pictures: Sequence[Picture], prompts: Sequence[Prompt]
) -> list[str]:
    """The answers once more, the way callers get them."""
    pam = _region_model(case, model)
    generation = Generation(len(case["generated"][0]))
    embeddings = [pam.embed([picture])[0] for picture in pictures]
    regions = pam.segment(list(zip(embeddings, prompts, strict=True)))
    texts = []
    for embedding, (region,) in zip(embeddings, regions, strict=True):
        questions = ask(embedding, [region], [TASK], generation=generation)
        texts.append(with_answers([region], pam.describe(questions))[0].text(TASK) or "")
    return texts


def _training_case(folder: Path, case: Mapping[str, Any], model: PamModel, _: Mapping[str, Tensor]) -> Outcome:
    """The loss of conversations about the picture of the image cases, its gradients, and what is learned."""
    prompts = [_prompt(folder, *given) for given in zip(case["visual_prompts"], case["vp_labels"], strict=True)]
    files = case.get("images", [["inputs/image.png"]] * len(prompts))
    batch = make_batch(model, case["sources"])
    regions = region_sequences(model, [_picture(folder / row[0]) for row in files], prompts)
    loss, logits = loss_and_logits(model, batch, regions)
    torch.autograd.backward(loss)
    got = {
        "input_ids": batch.ids,
        "labels": batch.labels,
        "attention_mask": batch.mask,
        "loss": loss[None],
        "logits_last": logits[:, -1],
    }
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            key = released_key(name)
            got[f"{NORM}{key}"] = parameter.grad.double().norm()[None]
            got.update((f"grad_{part}", parameter.grad) for part in key.split("."))  # recorded by such a part
    model.zero_grad()
    return got, None


def _stability_case(_: Path, __: Mapping[str, Any], ___: PamModel, recorded: Mapping[str, Tensor]) -> Outcome:
    """The choice among made-up masks."""
    masks, ious, tokens = recorded["masks"], recorded["iou"], recorded["tokens"]
    chosen = stable_choice(masks, ious)
    rows = torch.arange(len(chosen))
    picked = {"masks_out": masks, "iou_out": ious, "tokens_out": tokens}
    got = {name: tensor[rows, chosen][:, None] for name, tensor in picked.items()}
    return {**recorded, "stability": stability(masks[:, :1]), **got}, None


def _picture(file: Path) -> Picture:
    """A picture as the reference reads it: without EXIF orientation."""
    return np.array(Image.open(file).convert("RGB"))


def _prompt(folder: Path, given: Any, labels: Sequence[int] | None) -> Prompt:
    """Four numbers are a box, pairs of numbers are points, a name is a mask's."""
    if isinstance(given, str):
        return Prompt.from_mask(np.array(Image.open(folder / given).convert("L")) > 127)
    if np.asarray(given).ndim == 1:
        return Prompt(box=tuple(given))
    return Prompt(points=tuple((x, y) for x, y in given), labels=tuple(labels or ()))
