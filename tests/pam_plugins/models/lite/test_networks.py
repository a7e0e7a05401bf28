"""The networks of ``lite``, with the weights that ship, against answers recorded from the originals.

The fixtures come from tools/record_lite_fixtures.py.  Tolerances are about three times what was measured
on x86 with torch 2.13; nearly all of the difference is due to storing the weights as float16 (the same
networks with float32 weights agree to 3e-6 in the image embedding, 5e-4 in the mask logits and 2e-5 in the
classifier's logits).
"""

from __future__ import annotations

import json
from typing import TypeVar

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from pam_plugins.models.lite.networks.coco_detector import (
    COCO_CLASSES,
    CocoDetector,
    class_nms,
    letterbox,
)
from pam_plugins.models.lite.networks.efficientnet import (
    IMAGE_SIZE,
    EfficientNetLite2,
    SameConv2d,
    normalize,
)
from pam_plugins.models.lite.networks.mask_decoder import (
    MaskDecoder,
    upscale_logits,
)
from pam_plugins.models.lite.networks.tinyvit import FRAME_SIZE, TinyViT, framed
from tests.paths import ROOT

FIXTURES = ROOT / "tests" / "data" / "lite"
WEIGHTS = ROOT / "pam_plugins" / "models" / "lite" / "weights"
PROMPTS = ("point", "box", "two_points", "point_and_box", "point_and_mask")

Network = TypeVar("Network", bound=nn.Module)


def load(network: Network, name: str) -> Network:
    stored = load_file(WEIGHTS / f"{name}.safetensors")
    network.load_state_dict({key: tensor.float() for key, tensor in stored.items()})
    return network.eval().requires_grad_(False)


def fixture(name: str) -> dict[str, Tensor]:
    return load_file(FIXTURES / f"{name}.safetensors")


@pytest.fixture(scope="module")
def photos() -> dict[str, Tensor]:
    return fixture("photos")


@pytest.fixture(scope="module")
def encoder() -> TinyViT:
    return load(TinyViT(), "tinyvit")


@pytest.fixture(scope="module")
def decoder() -> MaskDecoder:
    return load(MaskDecoder(), "mask_decoder")


@pytest.fixture(scope="module")
def classifier() -> EfficientNetLite2:
    return load(EfficientNetLite2(), "efficientnet_lite2")


@pytest.fixture(scope="module")
def detector() -> CocoDetector:
    return load(CocoDetector(), "coco_detector")


@pytest.fixture(scope="module")
def embedding(encoder: TinyViT, photos: dict[str, Tensor]) -> Tensor:
    return encoder(framed(resized(photos["astronaut"], FRAME_SIZE, "bilinear")[0]))


def synthetic_embedding() -> Tensor:
    """As in the recording tool."""
    channel = torch.arange(256.0).view(256, 1, 1)
    ys = torch.arange(64.0).view(1, 64, 1)
    xs = torch.arange(64.0).view(1, 1, 64)
    return (0.1 * torch.sin(0.7 * channel + 0.11 * ys + 0.05 * xs * (1 + channel % 5)))[None]


def synthetic_mask() -> Tensor:
    """As in the recording tool."""
    ys, xs = torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="ij")
    distance = torch.sqrt((xs - 110) ** 2 + (ys - 50) ** 2)
    return ((30 - distance) / 4).clamp(-10, 10)[None, None]


def resized(photo: Tensor, side: int, mode: str) -> Tensor:
    """As in the recording tool."""
    x = F.interpolate(photo[None].float(), (side, side), mode=mode, align_corners=False, antialias=True)
    return x.clamp(0, 255)


def mask_iou(a: Tensor, b: Tensor) -> float:
    return float((a & b).sum() / (a | b).sum().clamp(min=1))


# --- TinyViT -----------------------------------------------------------------------------------------------


def test_tinyvit_matches_the_onnx_encoder(embedding: Tensor) -> None:
    expected = fixture("tinyvit")["astronaut"]
    difference = (embedding[0, :, ::8, ::8] - expected).abs()
    assert embedding.shape == (1, 256, 64, 64)
    # Measured 8e-4 and 6e-5; the features' standard deviation is 0.1.
    assert difference.max() < 3e-3
    assert difference.mean() < 2e-4


@pytest.mark.parametrize(("height", "width"), [(256, 256), (224, 320), (90, 131)])
def test_tinyvit_takes_any_size(encoder: TinyViT, height: int, width: int) -> None:
    x = torch.linspace(-2, 2, 3 * height * width).view(1, 3, height, width)
    y = encoder(x.expand(2, -1, -1, -1))
    assert y.shape == (2, 256, -(-height // 16), -(-width // 16))
    assert torch.allclose(y[0], y[1], atol=1e-5)


def test_a_framed_picture_is_padded_with_zeros_after_normalising() -> None:
    frame = framed(torch.full((3, 32, 64), 255, dtype=torch.uint8), size=64)
    assert frame.shape == (1, 3, 64, 64)
    assert torch.equal(frame[:, :, 32:], torch.zeros(1, 3, 32, 64))
    assert frame[0, 0, :32].mean() == pytest.approx((255 - 123.675) / 58.395, abs=1e-4)


# --- SAM's prompt encoder and mask decoder -----------------------------------------------------------------


@pytest.mark.parametrize("source", ["photo", "synthetic"])
@pytest.mark.parametrize("name", PROMPTS)
def test_mask_decoder_matches_the_onnx_decoder(
    decoder: MaskDecoder, embedding: Tensor, source: str, name: str
) -> None:
    reference = fixture("mask_decoder")
    expected = {key: reference[f"{source}.{name}.{key}"] for key in ("points", "labels", "logits", "iou")}
    image = embedding if source == "photo" else synthetic_embedding()
    mask = synthetic_mask() if name == "point_and_mask" else None
    logits, iou = decoder(image, expected["points"], expected["labels"], mask)
    assert logits.shape == (1, 4, 256, 256)
    assert iou.shape == (1, 4)

    # As SamOnnxModel.select_masks in segment-anything: token 0 is meant for clear prompts.
    chosen = 0 if expected["points"].shape[1] > 2 else int(iou[0, 1:].argmax()) + 1
    assert float(iou[0, chosen]) == pytest.approx(float(expected["iou"]), abs=1e-3)
    difference = (logits[0, chosen, ::4, ::4] - expected["logits"]).abs()
    # Measured at most 0.05 (mean 0.013), of logits whose absolute mean is 5 to 24.
    assert difference.max() < 0.15
    assert difference.mean() < 0.03
    if source == "photo":  # the synthetic embedding shows nothing, and its masks are specks
        assert mask_iou(logits[0, chosen, ::4, ::4] > 0, expected["logits"] > 0) > 0.95


def test_the_transformer_has_the_originals_epsilon(decoder: MaskDecoder) -> None:
    # transformers' default, 1e-6, shifts the logits by about 0.1, which the tolerances above may not notice.
    transformer = decoder.transformer
    norms = [module for module in transformer.modules() if isinstance(module, nn.LayerNorm)]
    assert len(norms) == 9
    assert {norm.eps for norm in norms} == {1e-5}


def test_mask_decoder_rows_are_independent(decoder: MaskDecoder, embedding: Tensor) -> None:
    points = torch.tensor([[[440.0, 210.0], [0, 0]], [[700.0, 30.0], [830, 520]], [[100.0, 900.0], [0, 0]]])
    labels = torch.tensor([[1, -1], [2, 3], [1, -1]])
    together = decoder(embedding, points, labels)
    for i in range(3):
        alone = decoder(embedding, points[i : i + 1], labels[i : i + 1])
        assert torch.allclose(together[0][i], alone[0][0], atol=1e-3)
        assert torch.allclose(together[1][i], alone[1][0], atol=1e-4)


def test_a_padding_point_has_no_position(decoder: MaskDecoder) -> None:
    points = torch.tensor([[[440.0, 210.0], [0, 0]], [[440.0, 210.0], [900, 300]]])
    logits, _ = decoder(synthetic_embedding(), points, torch.tensor([[1, -1], [1, -1]]))
    assert torch.allclose(logits[0], logits[1], atol=1e-3)


def test_a_smaller_frame_moves_its_points_along(decoder: MaskDecoder) -> None:
    logits, iou = decoder(torch.zeros(1, 256, 16, 24), torch.tensor([[[384.0, 0], [0, 0]]]), torch.tensor([[1, -1]]))
    assert logits.shape == (1, 4, 64, 96)
    assert iou.shape == (1, 4)


def test_a_mask_of_the_wrong_shape_is_refused(decoder: MaskDecoder) -> None:
    with pytest.raises(ValueError, match=r"\(B, 1, 256, 256\).*got \(1, 1, 128, 128\)"):
        decoder(synthetic_embedding(), torch.zeros(1, 1, 2), torch.ones(1, 1).long(), torch.zeros(1, 1, 128, 128))


def test_upscaled_logits_fit_the_picture_again() -> None:
    logits = torch.full((1, 1, 256, 256), -5.0)
    logits[..., :128, :128] = 5.0  # the left half of a 2:1 picture, which fills the frame's upper half
    mask = upscale_logits(logits, (300, 600))[0, 0] > 0
    assert mask.shape == (300, 600)
    assert mask[:, :298].all()
    assert not mask[:, 302:].any()


# --- EfficientNet-Lite2 ------------------------------------------------------------------------------------


def test_efficientnet_matches_the_unfolded_original(classifier: EfficientNetLite2, photos: dict[str, Tensor]) -> None:
    expected = fixture("efficientnet_lite2")["logits"]
    x = torch.cat([resized(photos[name], IMAGE_SIZE, "bicubic") for name in ("astronaut", "coffee", "cat_face")])
    x = normalize(x)
    logits = classifier(x)
    # Measured 0.012, of logits up to 9.5.
    assert (logits - expected).abs().max() < 0.04
    assert logits[1:].argmax(1).tolist() == [967, 285]  # espresso, Egyptian cat
    assert torch.allclose(classifier.classifier(classifier.pooled_features(x)), logits, atol=1e-4)


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 2), (1, 1)])
@pytest.mark.parametrize("side", [9, 10])
def test_same_padding_rounds_up_and_pads_the_end_first(kernel: int, stride: int, side: int) -> None:
    conv = SameConv2d(1, 1, kernel, stride, bias=False)
    nn.init.ones_(conv.weight)
    y = conv(torch.ones(1, 1, side, side))
    assert y.shape[-2:] == (-(-side // stride),) * 2
    # Of an odd amount of padding the first row gets less, so its window covers at least as much.
    assert y[0, 0, 0].sum() >= y[0, 0, -1].sum()


# --- The COCO detector -------------------------------------------------------------------------------------


def test_detector_matches_the_tfjs_graph(detector: CocoDetector, photos: dict[str, Tensor]) -> None:
    expected = fixture("coco_detector")
    x, _, _, _ = letterbox(photos["astronaut"])
    scores, boxes = detector(x)
    assert scores.shape == (1, 3549, 80)
    assert boxes.shape == (1, 3549, 4)
    # The original is stored as float16 itself, so nothing is lost: measured 1.5e-7 and 5e-5 pixels.
    assert torch.allclose(scores[0, ::7], expected["scores"], rtol=0, atol=1e-5)
    assert torch.allclose(boxes[0, ::7], expected["boxes"], rtol=0, atol=1e-3)


def test_detector_finds_the_astronaut_and_the_cat(detector: CocoDetector, photos: dict[str, Tensor]) -> None:
    found = detector.detect(photos["astronaut"])
    assert COCO_CLASSES[int(found.class_ids[0])] == "person"
    # By hand: she fills x 5..180 and y 5..256 of the 256 x 256 picture.
    assert torch.allclose(found.boxes[0], torch.tensor([5.0, 5.0, 180.0, 256.0]), atol=10)
    assert found.scores[0] > 0.6
    assert (found.scores.diff() <= 0).all()
    cat = detector.detect(photos["cat_face"])
    assert COCO_CLASSES[int(cat.class_ids[0])] == "cat"


def test_detector_finds_nothing_in_nothing(detector: CocoDetector) -> None:
    found = detector.detect(torch.zeros(3, 40, 60, dtype=torch.uint8))
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)


@pytest.mark.parametrize(("height", "width"), [(100, 200), (200, 100), (416, 416), (1, 1000)])
def test_letterbox_says_where_the_picture_lies(height: int, width: int) -> None:
    x, scale, left, top = letterbox(torch.full((3, height, width), 255, dtype=torch.uint8))
    bright = (x[0, 0] > 0).nonzero()
    assert x.shape == (1, 3, 416, 416)
    assert bright.min(0).values.tolist() == [top, left]
    assert bright.max(0).values.tolist() == [
        top + max(1, round(height * scale)) - 1,
        left + round(width * scale) - 1,
    ]


def test_letterbox_refuses_sizes_the_strides_do_not_divide() -> None:
    with pytest.raises(ValueError, match="multiple of 32, got 400"):
        letterbox(torch.zeros(3, 8, 8), 400)


def test_nms_is_per_class_and_keeps_the_better_box() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [0, 0, 10, 10], [50, 50, 60, 60]])
    scores = torch.tensor([0.5, 0.9, 0.8, 0.1])
    class_ids = torch.tensor([0, 0, 7, 0])
    assert class_nms(boxes, scores, class_ids, 0.6, 100).tolist() == [1, 2, 3]
    assert class_nms(boxes, scores, class_ids, 0.6, 2).tolist() == [1, 2]


def test_the_classes_are_cocos() -> None:
    assert len(COCO_CLASSES) == len(set(COCO_CLASSES)) == 80
    assert COCO_CLASSES[0] == "person"
    assert COCO_CLASSES[15] == "cat"
    assert COCO_CLASSES[79] == "toothbrush"


# --- The files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tinyvit", "mask_decoder", "efficientnet_lite2", "coco_detector"])
def test_every_weights_file_says_where_it_comes_from(name: str) -> None:
    with safe_open(WEIGHTS / f"{name}.safetensors", "pt") as file:
        provenance = json.loads(file.metadata()["provenance"])
        types = {str(file.get_tensor(key).dtype) for key in file.keys()}  # noqa: SIM118 (not a dict)
    assert {"source", "source_archive_sha256", "source_files", "licence", "upstream"} <= provenance.keys()
    assert types == {"torch.float16", "torch.float32"}


def test_the_weights_stay_small_enough_to_ship() -> None:
    assert sum(path.stat().st_size for path in WEIGHTS.glob("*.safetensors")) < 41_000_000
