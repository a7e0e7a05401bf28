"""How long PAM takes for many regions and questions of one picture, phase by phase, at a released size.

    make pam-python ARGS="benchmarks/image.py --size PAM-1.5B --regions 8 --questions 3 --tokens 32"

The weights are random: time and memory do not depend on them. Beside it, in the same run, the speed of a bare matrix
product and of reading memory, which bound the phases. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pam_core.contracts import ModelInfo
from pam_core.media.images import read_picture
from pam_core.pam import description, generation
from pam_core.pam.checkpoint import read_tokenizer
from pam_core.pam.config import RELEASED
from pam_core.pam.model import PamModel
from pam_core.pam.region_model import PamRegionModel
from pam_core.pam.weights import empty_weights
from pam_core.questions import Generation, ask, with_answers
from pam_core.types import Prompt

TESTS = Path(__file__).parent.parent / "tests"
REFERENCE_SECONDS = 63.6
"""The reference, one region and one text of 32 tokens, PAM-1.5B, float32, on a quiet machine with two cores and AVX2;
it does all of it again for every region and every question."""


class Phases:
    """Wall and CPU seconds by phase, and how often each ran."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    @contextmanager
    def time(self, phase: str) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            spent = self.seconds.setdefault(phase, [0.0, 0.0, 0])
            spent[0] += time.perf_counter() - wall
            spent[1] += time.process_time() - cpu
            spent[2] += 1

    def watch(self, owner: Any, name: str, phase: str | Callable[..., str]) -> None:
        """Time every call of a function from here on."""
        function = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.time(phase if isinstance(phase, str) else phase(*args, **kwargs)):
                return function(*args, **kwargs)

        setattr(owner, name, timed)


def random_model(size: str, dtype: torch.dtype) -> PamModel:
    """A model of a released size with small random weights, and the tests' small tokenizer."""
    with empty_weights():
        model = PamModel(RELEASED[size])
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            filled = torch.empty(parameter.shape, dtype=dtype).uniform_(-0.02, 0.02)
            setattr(module, name, nn.Parameter(filled, requires_grad=False))
    model.language.lm_head.weight = model.language.model.embed_tokens.weight
    model.tokenizer = read_tokenizer(TESTS / "parity")
    model.generation = {"eos_token_id": []}  # every answer has its full length
    return model.place(torch.device("cpu"), dtype).eval()


def machine_speed() -> dict[str, float]:
    """Billions of operations a second of a bare float32 matrix product, and of bytes a second read from memory."""
    a, b = torch.randn(1056, 1536), torch.randn(8960, 1536)
    big = torch.randn(256 * 2**20 // 4)
    speeds = {}
    for name, work, run in (
        ("gflops", 2 * 1056 * 1536 * 8960 / 1e9, lambda: a @ b.T),
        ("gb_per_s", big.nbytes / 1e9, big.sum),
    ):
        run()
        started = time.perf_counter()
        for _ in range(8):
            run()
        speeds[name] = round(8 * work / (time.perf_counter() - started), 1)
    return speeds


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--size", choices=sorted(RELEASED), default="PAM-1.5B")
    parser.add_argument("--regions", type=int, default=8)
    parser.add_argument("--questions", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--bf16", action="store_true", help="the heavy parts in bfloat16")
    args = parser.parse_args()

    speed = machine_speed()
    model = random_model(args.size, torch.bfloat16 if args.bf16 else torch.float32)
    tasks = {f"question {number}": {"en": f"Provide answer {number}."} for number in range(args.questions)}
    info = ModelInfo("pam", "random", "", "", {task: frozenset({"en"}) for task in tasks})
    pam = PamRegionModel(model, info, tasks)

    phases = Phases()
    phases.watch(pam, "embed", "image encoder")
    phases.watch(pam.model.vision, "answer_prompts", "mask decoder")
    phases.watch(pam.model, "perceive", "perceiver")
    phases.watch(pam.model, "project", "projectors")
    phases.watch(description, "prefill", "prefill")
    phases.watch(
        generation, "extend", lambda *a, **k: "questions" if len(a[3]) > args.regions * args.questions else "decode"
    )
    phases.watch(model.language.lm_head, "forward", "head")

    picture = read_picture(TESTS / "data" / "photos" / "street_sign.jpg")
    height, width = picture.shape[:2]
    prompts = [Prompt.at(width * (n + 0.5) / args.regions, height / 2) for n in range(args.regions)]
    with phases.time("everything"):
        (embedding,) = pam.embed([picture])
        regions = [region for (region,) in pam.segment([(embedding, prompt) for prompt in prompts])]
        questions = ask(embedding, regions, list(tasks), generation=Generation(args.tokens))
        answers = with_answers(regions, pam.describe(questions))
    lengths = {len(model.tokenizer(t).input_ids) for r in answers for by in r.texts.values() for t in by.values()}
    total, cpu, _ = phases.seconds.pop("everything")
    answered = args.regions * args.questions
    print(f"answers in tokens, read back: {sorted(lengths)}")
    figures = {
        "benchmark": "image",
        "size": args.size,
        "dtype": str(model.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "regions": args.regions,
        "questions": args.questions,
        "tokens": args.tokens,
        "machine": speed,
        "wall_s": round(total, 1),
        "cpu_s": round(cpu, 1),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
        "encoded": pam.counts.encoded,
        "prefills": pam.counts.prefills,
        "reference_wall_s": round(REFERENCE_SECONDS * answered, 1),
        "share_of_reference": round(total / (REFERENCE_SECONDS * answered), 3),
        "phases": {
            name: {"wall_s": round(wall, 2), "cpu_s": round(cpu, 2), "calls": calls}
            for name, (wall, cpu, calls) in phases.seconds.items()
        },
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
