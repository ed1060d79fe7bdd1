"""Exercises of chapter 02: the template, the loss mask, the SFT loss."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from course_utils.checks import Exercise, Part, Wrong, close, randn
from course_utils.exercises._judge import NAMING
from course_utils.logprobs import IGNORE, sft_loss
from course_utils.templates import format_instruction

WORDS = ("heron", "lamp", "river", "soup", "bell", "door", "moss", "kite")


def _joined(example: dict[str, str]) -> str:
    parts = ["### Instruction:\n" + example["instruction"]]
    if example["context"]:
        parts.append("### Context:\n" + example["context"])
    parts.append("### Response:\n" + example["response"])
    return "\n\n".join(parts)


def _with_get(example: dict[str, str]) -> str:
    text = "### Instruction:\n{}\n\n".format(example["instruction"])
    text += "### Context:\n{}\n\n".format(example["context"]) if example.get("context") else ""
    return text + "### Response:\n{}".format(example["response"])


def _always_context(example: dict[str, str]) -> str:
    return (
        "### Instruction:\n{instruction}\n\n### Context:\n{context}\n\n### Response:\n{response}"
    ).format(**example)


def _never_context(example: dict[str, str]) -> str:
    return "### Instruction:\n{instruction}\n\n### Response:\n{response}".format(**example)


def _no_blank_lines(example: dict[str, str]) -> str:
    return _joined(example).replace("\n\n###", "\n###")


def _swapped(example: dict[str, str]) -> str:
    return _joined(
        {
            **example,
            "instruction": example["context"] or example["instruction"],
            "context": example["instruction"] if example["context"] else "",
        }
    )


def _check_format(answer: Any, rng: random.Random) -> Iterator[Part]:
    words = rng.sample(WORDS, 6)
    bare = {"instruction": " ".join(words[:3]), "context": "", "response": " ".join(words[3:])}
    got, want = answer(bare), format_instruction(bare)
    mistake = "compare with the format printed above, blank lines included"
    if not isinstance(got, str):
        mistake = "return a string"
    elif "Context" in got:
        mistake = "without a context there is no Context section"
    elif not got.rstrip().endswith(bare["response"]):
        mistake = "the response is missing at the end"
    elif got.strip() == want and got != want:
        mistake = "stray blanks or line ends at the beginning or the end"
    elif "\n\n### Response" not in got:
        mistake = "one empty line stands before each heading"
    yield Part(1, got == want, mistake)
    full = {**bare, "context": " ".join(rng.sample(WORDS, 4))}
    got, want = answer(full), format_instruction(full)
    mistake = "the Context section stands between instruction and response"
    if full["context"] not in str(got):
        mistake = "the context is lost: it belongs between instruction and response"
    yield Part(1, got == want, mistake)


def make_labels(
    prompt_ids: list[int], response_ids: list[int], eos_id: int
) -> tuple[list[int], list[int]]:
    """(input_ids, labels): prompt masked with -100, response and EOS kept."""
    kept = [*response_ids, eos_id]
    return [*prompt_ids, *kept], [IGNORE] * len(prompt_ids) + kept


def _labels_by_copy(prompt_ids: list[int], response_ids: list[int], eos_id: int) -> Any:
    input_ids = prompt_ids + response_ids + [eos_id]
    labels = input_ids.copy()
    for i in range(len(prompt_ids)):
        labels[i] = -100
    return input_ids, labels


def _labels_as_tensors(prompt_ids: list[int], response_ids: list[int], eos_id: int) -> Any:
    import torch

    input_ids = torch.tensor([*prompt_ids, *response_ids, eos_id])
    labels = input_ids.clone()
    labels[: len(prompt_ids)] = -100
    return input_ids, labels


def _shifted(p: list[int], r: list[int], e: int) -> Any:
    return [*p, *r, e], [IGNORE] * (len(p) - 1) + [*r, e, IGNORE]


def _check_labels(answer: Any, rng: random.Random) -> Iterator[Part]:
    prompt = [rng.randrange(10, 90) for _ in range(rng.randint(3, 7))]
    response = [rng.randrange(10, 90) for _ in range(rng.randint(2, 6))]
    eos = rng.randrange(1, 9)
    input_ids, labels = answer(prompt, response, eos)
    want_ids, want_labels = make_labels(prompt, response, eos)
    mistake = "input_ids are prompt, response, EOS, in this order"
    if close(input_ids, want_ids[:-1]):
        mistake = "the EOS is missing: the model would never learn to stop"
    elif IGNORE in list(input_ids):
        mistake = "only the labels are masked; the model must read the whole prompt"
    yield Part(1, close(input_ids, want_ids), mistake)
    mistake = "labels: -100 for every prompt token, then the response and the EOS"
    if close(labels, want_ids):
        mistake = "the prompt is not masked: put -100 at its places"
    elif close(labels, [IGNORE] * (len(prompt) + len(response)) + [eos]) or close(
        labels, [*prompt, *[IGNORE] * (len(response) + 1)]
    ):
        mistake = "the mask covers the response: it is the prompt that is not learnt"
    elif close(labels, [*want_labels[:-1], IGNORE]):
        mistake = "the EOS is masked: the model would never learn to stop"
    elif len(list(labels)) != len(want_ids):
        mistake = "labels are as long as input_ids"
    elif close(labels, _shifted(prompt, response, eos)[1]):
        mistake = "do not shift the labels here: the loss does that"
    elif close(labels, [0 if x == IGNORE else x for x in want_labels]):
        mistake = "the mask is -100; 0 is a token like any other"
    yield Part(2, close(labels, want_labels), mistake)


def _loss_cross_entropy(logits: Any, labels: Any) -> Any:
    from torch.nn.functional import cross_entropy

    return cross_entropy(logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten())


def _loss_looped(logits: Any, labels: Any) -> Any:
    losses = []
    for b in range(logits.shape[0]):
        for t in range(1, logits.shape[1]):
            if labels[b, t] != -100:
                losses.append(-logits[b, t - 1].double().log_softmax(-1)[labels[b, t]])
    return sum(losses) / len(losses)


def _loss_masked_sum(logits: Any, labels: Any) -> Any:
    keep = (labels[:, 1:] != -100).float()
    logprobs = logits[:, :-1].log_softmax(-1)
    picked = logprobs.gather(-1, labels[:, 1:].clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return -(picked * keep).sum() / keep.sum()


def _no_shift(logits: Any, labels: Any) -> Any:
    from torch.nn.functional import cross_entropy

    return cross_entropy(logits.flatten(0, 1), labels.flatten())


def _mean_of_rows(logits: Any, labels: Any) -> Any:
    return sum(
        _loss_masked_sum(logits[b : b + 1], labels[b : b + 1]) for b in range(len(labels))
    ) / len(labels)


def _sum(logits: Any, labels: Any) -> Any:
    return _loss_masked_sum(logits, labels) * (labels[:, 1:] != -100).sum()


def _mask_ignored(logits: Any, labels: Any) -> Any:
    return _loss_masked_sum(logits, labels.clamp(min=0))


def _over_all(logits: Any, labels: Any) -> Any:
    return _sum(logits, labels) / labels[:, 1:].numel()


def _zeroed(logits: Any, labels: Any) -> Any:
    labels[labels == -100] = 0
    return _loss_masked_sum(logits, labels)


def _wrong_axis(logits: Any, labels: Any) -> Any:
    keep = labels[:, 1:] != -100
    picked = logits[:, :-1].log_softmax(1).gather(-1, labels[:, 1:].clamp(min=0)[..., None])
    return -picked.squeeze(-1)[keep].mean()


def _detached(logits: Any, labels: Any) -> Any:
    return _loss_masked_sum(logits.detach(), labels)


def _check_loss(answer: Any, rng: random.Random) -> Iterator[Part]:
    import torch

    rows, length, size = rng.randint(3, 5), rng.randint(8, 12), rng.randint(5, 9)
    logits = randn(rng, rows, length, size) * 3
    labels = torch.tensor([[rng.randrange(size) for _ in range(length)] for _ in range(rows)])
    for row in range(rows):  # a prompt of its own length in each row, so that means differ
        labels[row, : 1 + row * 2] = IGNORE
    got, want = answer(logits, labels), sft_loss(logits, labels)
    mistakes = {
        "the sign: the loss is minus the mean log-probability": -want,
        "shift by one: the logits at position t predict the label at t+1": _no_shift(
            logits, labels
        ),
        "mean over the kept tokens, not their sum": _sum(logits, labels),
        "average over all kept tokens of the batch, not row by row": _mean_of_rows(logits, labels),
        "labels of -100 must not count": _mask_ignored(logits, labels),
        "divide by the number of kept tokens, not of all": _over_all(logits, labels),
        "log-softmax over the vocabulary, the last axis": _wrong_axis(logits, labels),
    }
    named = (text for text, value in mistakes.items() if close(got, value, NAMING))
    yield Part(3, close(got, want, 1e-4), next(named, "compare with the formula, term by term"))
    live = logits.clone().requires_grad_()
    loss = answer(live, labels)
    yield Part(
        1,
        getattr(loss, "requires_grad", False),
        "no gradient flows back to the logits: do not detach or convert to a number",
    )


EXERCISES = [
    Exercise(
        name="format_instruction",
        chapter="02_sft",
        title="From a row to a text",
        points=2,
        difficulty=1,
        minutes=6,
        hint="build the Context section only where example['context'] is not empty",
        check=_check_format,
        solution=format_instruction,
        other_right=[_joined, _with_get],
        wrong={
            "context always": Wrong(_always_context, "there is no Context section"),
            "context never": Wrong(_never_context, "the context is lost"),
            "no blank lines": Wrong(_no_blank_lines, "one empty line"),
            "response missing": Wrong(
                lambda x: _joined({**x, "response": ""}), "missing at the end"
            ),
            "trailing line end": Wrong(lambda x: _joined(x) + "\n", "stray blanks"),
            "context first": Wrong(_swapped, "between instruction and response"),
        },
    ),
    Exercise(
        name="make_labels",
        chapter="02_sft",
        title="The loss mask",
        points=3,
        difficulty=2,
        minutes=8,
        hint="labels are a copy of input_ids in which the prompt's places hold -100",
        check=_check_labels,
        solution=make_labels,
        other_right=[_labels_by_copy, _labels_as_tensors],
        wrong={
            "not masked": Wrong(lambda p, r, e: ([*p, *r, e], [*p, *r, e]), "not masked"),
            "EOS missing": Wrong(
                lambda p, r, e: ([*p, *r], [-100] * len(p) + r), "the EOS is missing"
            ),
            "EOS masked": Wrong(
                lambda p, r, e: ([*p, *r, e], [-100] * len(p) + r + [-100]), "EOS is masked"
            ),
            "response masked": Wrong(
                lambda p, r, e: ([*p, *r, e], p + [-100] * (len(r) + 1)), "covers the response"
            ),
            "inputs masked": Wrong(
                lambda p, r, e: ([-100] * len(p) + [*r, e], [-100] * len(p) + [*r, e]),
                "only the labels are masked",
            ),
            "shifted": Wrong(_shifted, "do not shift"),
            "zero for -100": Wrong(
                lambda p, r, e: ([*p, *r, e], [0] * len(p) + [*r, e]), "0 is a token"
            ),
        },
    ),
    Exercise(
        name="sft_loss",
        chapter="02_sft",
        title="The SFT loss",
        points=4,
        difficulty=3,
        minutes=15,
        hint="log_softmax, shift, gather; then the mean over labels that are not -100",
        check=_check_loss,
        solution=sft_loss,
        other_right=[_loss_cross_entropy, _loss_looped, _loss_masked_sum],
        wrong={
            "sign": Wrong(lambda x, y: -sft_loss(x, y), "the sign"),
            "no shift": Wrong(_no_shift, "shift by one"),
            "sum": Wrong(_sum, "not their sum"),
            "mean of rows": Wrong(_mean_of_rows, "not row by row"),
            "mask ignored": Wrong(_mask_ignored, "must not count"),
            "all tokens": Wrong(_over_all, "not of all"),
            "wrong axis": Wrong(_wrong_axis, "last axis"),
            "detached": Wrong(_detached, "no gradient"),
            "labels changed": Wrong(_zeroed, "changes its input"),
        },
    ),
]
