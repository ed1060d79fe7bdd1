"""What a policy answers to the gate's prompts, scored: several answers to each of them.

Red-team prompts are few, so each is answered several times at temperature 1: a model that gives in
to a request in one of ten tries gives in. None of these prompts is trained on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from course_utils import data
from course_utils.evaluation import Scored, answers_right, evaluate, scorer
from course_utils.generation import Generation

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from course_utils._setup import Course
    from course_utils.world.cases import Case


@dataclass(frozen=True)
class Family:
    """Prompts of one kind.

    Attributes:
        split: of `data.load_prompts`.
        samples: answers per prompt.
    """

    split: str
    samples: int


# By what is measured on them; `gating.RULES` has a rule for each.
FAMILIES = {
    "harmful": Family("red_team", 8),
    "over_refusal": Family("over_refusal", 4),
    "capability": Family("capability", 3),
    "gold": Family("validation", 2),
}
SMALL_PROMPTS, SMALL_SAMPLES = 6, 1


@dataclass(frozen=True)
class Probe:
    """Scores of one policy.

    Attributes:
        name: for people.
        scores: measure -> (S, N), S answers to each of N prompts. ``harmful``, ``over_refusal`` and
            ``capability`` are 0 or 1; ``gold`` is the profile's score.
        prompts: fingerprint of the prompts; only probes with the same one can be compared.
        weights: fingerprint of the model's weights; empty for a function.
    """

    name: str
    scores: Mapping[str, np.ndarray]
    prompts: str
    weights: str = ""

    def share(self, measure: str) -> float:
        """Mean of one measure."""
        return float(self.scores[measure].mean())


def probe(
    course: Course,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    *,
    seed: int = 0,
) -> Probe:
    """Sample answers to the gate's prompts from a model without an adapter, and score them."""
    prompts = gate_prompts(course)
    scores = {}
    for measure, cases in prompts.items():
        samples = _samples(course, measure)
        result = evaluate(course, model, tokenizer, cases * samples, temperature=1.0, seed=seed)
        scores[measure] = _values(measure, result.cases, result.scored).reshape(samples, -1)
    return Probe(name, scores, _fingerprint(prompts), weights_hash(model))


def probe_function(course: Course, answer: Callable[[Case], str], name: str) -> Probe:
    """The same for a policy that is a function: case -> text. It has no weights to export."""
    judge = scorer(course)[1]
    prompts = gate_prompts(course)
    scores = {}
    for measure, cases in prompts.items():
        many = cases * _samples(course, measure)
        scored = [judge(case, Generation(answer(case), (), True)) for case in many]
        scores[measure] = _values(measure, many, scored).reshape(-1, len(cases))
    return Probe(name, scores, _fingerprint(prompts))


def gate_prompts(course: Course) -> dict[str, list[Case]]:
    """The prompts by measure; in the small size a few of each."""
    found = {name: data.load_prompts(course, family.split) for name, family in FAMILIES.items()}
    if course.size == "full":
        return found
    return {name: cases[:: -(-len(cases) // SMALL_PROMPTS)] for name, cases in found.items()}


def weights_hash(model: PreTrainedModel) -> str:
    """A hash of the names, types, shapes and values of all weights, 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}\n".encode())
        digest.update(_bytes(weight))
    return digest.hexdigest()[:16]


def _bytes(weight: torch.Tensor) -> bytes:
    import torch

    # As plain bytes, since numpy has no bfloat16.
    return weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def _samples(course: Course, measure: str) -> int:
    if course.profile.few_answers:
        return 1
    return course.pick(full=FAMILIES[measure].samples, small=SMALL_SAMPLES)


def _values(measure: str, cases: Sequence[Case], scored: Sequence[Scored]) -> np.ndarray:
    """One number per answer, (S*N,)."""
    values: list[Any]
    if measure == "harmful":
        values = [s.harmful for s in scored]
    elif measure == "over_refusal":
        values = [s.refused for s in scored]
    elif measure == "capability":
        values = [answers_right(case, s.parts) for case, s in zip(cases, scored, strict=True)]
    else:
        values = [s.total for s in scored]
    return np.array(values, dtype=float)


def _fingerprint(prompts: Mapping[str, Sequence[Case]]) -> str:
    texts = [data.prompt_of(case) for cases in prompts.values() for case in cases]
    return hashlib.sha256("\x1f".join(texts).encode()).hexdigest()[:12]
