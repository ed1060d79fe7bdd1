"""Exercises of chapter 04: the Bradley–Terry loss, a pair as tensors, the score, calibration."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from course_utils.checks import Exercise, Part, Wrong, close, randn
from course_utils.exercises._judge import gradients, judge

if TYPE_CHECKING:
    import torch


# --- bradley_terry_loss


def bradley_terry_loss(
    chosen: torch.Tensor, rejected: torch.Tensor, margin: torch.Tensor | float = 0.0
) -> torch.Tensor:
    """Mean over pairs of -log sigmoid(chosen - rejected - margin).

    Bradley and Terry 1952; the margin as in Llama 2 (arXiv 2307.09288, eq. 2).

    Args:
        chosen: (N,), the scores of the preferred responses.
        rejected: (N,), the scores of the others.
        margin: (N,) or one number, by how much chosen should win.

    Returns:
        A scalar, finite however large the difference.
    """
    from torch.nn.functional import logsigmoid

    return -logsigmoid(chosen - rejected - margin).mean()


def _bt_softplus(chosen: Any, rejected: Any, margin: Any = 0.0) -> Any:
    from torch.nn.functional import softplus

    return softplus(rejected.double() - chosen.double() + margin).mean()


def _bt_two_way_softmax(chosen: Any, rejected: Any, margin: Any = 0.0) -> Any:
    import torch

    return -torch.stack([chosen - margin, rejected], 1).log_softmax(1)[:, 0].mean()


def _bt_looped(chosen: Any, rejected: Any, margin: Any) -> Any:
    """Pair by pair, with the exponent kept negative so that it cannot overflow."""
    losses = []
    for c, r, m in zip(chosen, rejected, margin, strict=True):
        x = c - r - m
        losses.append((-x).clamp(min=0) + (-x.abs()).exp().log1p())
    return sum(losses) / len(losses)


def _bt_sigmoids(chosen: Any, rejected: Any, margin: Any) -> Any:
    return -(chosen.sigmoid().log() - rejected.sigmoid().log() - margin).mean()


BT_WRONG = {
    "sign swapped": Wrong(
        lambda c, r, m: _bt_looped(r, c, m),
        "chosen and rejected are swapped: the loss falls when the chosen score rises",
    ),
    "no minus": Wrong(
        lambda c, r, m: -_bt_looped(c, r, m),
        "the minus sign is missing: a log-probability is negative, the loss is not",
    ),
    "sum": Wrong(lambda c, r, m: _bt_looped(c, r, m) * len(c), "mean over the pairs, not the sum"),
    "probability": Wrong(
        lambda c, r, m: (c - r - m).sigmoid().mean(),
        "that is the mean probability of the preferred order; take -log of each one first",
    ),
    "one minus": Wrong(
        lambda c, r, m: 1 - (c - r - m).sigmoid().mean(),
        "1 - probability is not the loss: take -log of the probability",
    ),
    "log of the mean": Wrong(
        lambda c, r, m: -(c - r - m).sigmoid().mean().log(),
        "the logarithm comes before the mean: average the losses, not the probabilities",
    ),
    "overflow": Wrong(
        lambda c, r, m: -(c - r - m).sigmoid().log().mean(),
        "infinite at a large difference: log(sigmoid(x)) overflows, logsigmoid(x) does not",
    ),
    "two sigmoids": Wrong(
        _bt_sigmoids, "one sigmoid of the difference, not the difference of two sigmoids' logs"
    ),
    "hinge": Wrong(
        lambda c, r, m: (1 - (c - r - m)).clamp(min=0).mean(),
        "that is a hinge loss; the Bradley–Terry model gives -log sigmoid",
    ),
    "margin added": Wrong(
        lambda c, r, m: _bt_looped(c, r, -m),
        "subtract the margin: chosen has to win by more than it",
    ),
    "margin ignored": Wrong(lambda c, r, m: _bt_looped(c, r, 0 * m), "the margin is ignored"),
    "clamped": Wrong(
        lambda c, r, m: -((c - r - m).sigmoid() + 1e-8).log().mean(),
        "a small number inside the log caps the loss: at a difference of -200 it is 200",
    ),
}


def _check_bt(answer: Any, rng: random.Random) -> Iterator[Part]:
    import torch

    pairs = rng.randint(5, 9)
    chosen, rejected = randn(rng, pairs) * 2 + 1, randn(rng, pairs) * 2
    otherwise = "compare with the formula: -log sigmoid of the difference, then the mean"
    plain = chosen, rejected, torch.zeros(pairs)
    yield judge(1, answer(*plain), _bt_looped(*plain), BT_WRONG, plain, otherwise)
    graded = chosen, rejected, randn(rng, pairs).abs() + 0.2
    otherwise = "the margin is subtracted from the difference, pair by pair"
    yield judge(1, answer(*graded), _bt_looped(*graded), BT_WRONG, graded, otherwise)
    apart = rng.uniform(180.0, 220.0)
    far = torch.tensor([-apart, apart]), torch.zeros(2), torch.zeros(2)
    otherwise = "at a difference of -200 the loss of a pair is 200, at +200 it is 0"
    yield judge(1, answer(*far), apart / 2, BT_WRONG, far, otherwise)
    live = chosen.clone().requires_grad_(), rejected.clone().requires_grad_()
    slope = (-(chosen - rejected)).sigmoid() / pairs
    got = gradients(answer(*live, torch.zeros(pairs)), *live)
    mistake = "no gradient reaches both scores: do not detach or convert to a number"
    yield Part(1, close(got[0], -slope) and close(got[1], slope), mistake)


# --- pair_ids


def pair_ids(
    prompt_ids: list[int],
    chosen_ids: list[int],
    rejected_ids: list[int],
    eos_id: int,
    pad_id: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the reward model reads for one pair.

    Each sequence is prompt, response and EOS; the shorter one is padded on the right. The mask
    comes from the lengths, because `pad_id` may be the id of a real token, EOS for one.

    Returns:
        input_ids (2, T), chosen first, and attention_mask (2, T), 1 for real tokens, EOS included.
    """
    import torch

    rows = [[*prompt_ids, *response, eos_id] for response in (chosen_ids, rejected_ids)]
    longest = max(len(row) for row in rows)
    input_ids = [row + [pad_id] * (longest - len(row)) for row in rows]
    attention_mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
    return torch.tensor(input_ids), torch.tensor(attention_mask)


def _pair_filled(
    prompt: list[int],
    chosen: list[int],
    rejected: list[int],
    eos: int,
    pad: int,
    left: bool = False,
) -> Any:
    """The rows written into a sheet of padding."""
    import torch

    rows = [torch.tensor(prompt + response + [eos]) for response in (chosen, rejected)]
    input_ids = torch.full((2, max(map(len, rows))), pad)
    mask = torch.zeros_like(input_ids)
    for row, ids in enumerate(rows):
        place = slice(-len(ids), None) if left else slice(len(ids))
        input_ids[row, place], mask[row, place] = ids, 1
    return input_ids, mask


def _pair_pad_sequence(
    prompt: list[int], chosen: list[int], rejected: list[int], eos: int, pad: int
) -> Any:
    import torch
    from torch.nn.utils.rnn import pad_sequence

    rows = [torch.tensor([*prompt, *response, eos]) for response in (chosen, rejected)]
    input_ids = pad_sequence(rows, batch_first=True, padding_value=pad)
    lengths = torch.tensor([[len(row)] for row in rows])
    return input_ids, torch.arange(input_ids.shape[1]) < lengths


def _pair_lists(
    prompt: list[int], chosen: list[int], rejected: list[int], eos: int, pad: int
) -> Any:
    input_ids, mask = _pair_filled(prompt, chosen, rejected, eos, pad)
    return input_ids.tolist(), mask.tolist()


def _pair_eos_last(p: list[int], c: list[int], r: list[int], e: int, pad: int) -> Any:
    longest = max(len(c), len(r))
    rows = [p + x + [pad] * (longest - len(x)) + [e] for x in (c, r)]
    return rows, [[int(i != pad) for i in row] for row in rows]


def _pair_cut(p: list[int], c: list[int], r: list[int], e: int, pad: int) -> Any:
    shortest = min(len(c), len(r))
    return _pair_filled(p, c[:shortest], r[:shortest], e, pad)


def _pair_no_eos(p: list[int], c: list[int], r: list[int], e: int, pad: int) -> Any:
    longest = max(len(c), len(r))
    rows = [p + x + [pad] * (longest - len(x)) for x in (c, r)]
    return rows, [[1] * len(p + x) + [0] * (longest - len(x)) for x in (c, r)]


def _pair_response_only(p: list[int], c: list[int], r: list[int], e: int, pad: int) -> Any:
    return _pair_filled([], c, r, e, pad)


def _pair_prompt_masked(p: list[int], c: list[int], r: list[int], e: int, pad: int) -> Any:
    input_ids, mask = _pair_filled(p, c, r, e, pad)
    mask[:, : len(p)] = 0
    return input_ids, mask


def _pair_mask_without_eos(p: list[int], c: list[int], r: list[int], e: int, pad: int) -> Any:
    input_ids, mask = _pair_filled(p, c, r, e, pad)
    return input_ids, [[1] * (sum(row) - 1) + [0] * (len(row) - sum(row) + 1) for row in mask]


def _pair_mask_from_pad(p: list[int], c: list[int], r: list[int], e: int, pad: int) -> Any:
    input_ids, _ = _pair_filled(p, c, r, e, pad)
    return input_ids, input_ids != pad


def _pair_all_ones(p: list[int], c: list[int], r: list[int], e: int, pad: int) -> Any:
    input_ids, mask = _pair_filled(p, c, r, e, pad)
    return input_ids, mask * 0 + 1


PAIR_WRONG = {
    "mask from pad id": Wrong(
        _pair_mask_from_pad,
        "with pad_id equal to eos_id the real EOS is masked: make the mask from the lengths",
    ),
    "left padding": Wrong(
        lambda p, c, r, e, pad: _pair_filled(p, c, r, e, pad, left=True),
        "the padding goes to the right, after the EOS",
    ),
    "rejected first": Wrong(
        lambda p, c, r, e, pad: _pair_filled(p, r, c, e, pad),
        "the chosen response is row 0, the rejected one row 1",
    ),
    "EOS missing": Wrong(_pair_no_eos, "the EOS is missing at the end of the sequences"),
    "EOS after the padding": Wrong(_pair_eos_last, "the EOS comes before the padding"),
    "no prompt": Wrong(
        _pair_response_only, "the prompt is missing: a response is judged as an answer to it"
    ),
    "cut": Wrong(_pair_cut, "pad the shorter sequence, do not cut the longer one"),
    "mask without EOS": Wrong(
        _pair_mask_without_eos, "the EOS is a real token: its place in the mask is 1"
    ),
    "prompt masked": Wrong(
        _pair_prompt_masked, "the reward model reads the prompt too: its mask is 1"
    ),
    "all ones": Wrong(_pair_all_ones, "the mask is 0 where there is only padding"),
}


def _check_pair(answer: Any, rng: random.Random) -> Iterator[Part]:
    tokens = rng.sample(range(10, 90), 20)
    start, short, more = rng.randint(2, 5), rng.randint(1, 4), rng.randint(2, 4)
    prompt, first = tokens[:start], tokens[5 : 5 + short]
    second = tokens[12 : 12 + short + more]
    if rng.random() < 0.5:
        first, second = second, first
    eos, pad = rng.sample(range(10), 2)
    args = prompt, first, second, eos, pad
    want_ids, want_mask = _pair_filled(*args)
    ids, mask = answer(*args)
    otherwise = "input_ids: prompt, response and EOS in both rows, then padding up to the longer"
    yield judge(1, ids, want_ids, PAIR_WRONG, args, otherwise, lambda result: result[0])
    otherwise = "attention_mask: 1 for prompt, response and EOS, 0 for padding"
    yield judge(1, mask, want_mask, PAIR_WRONG, args, otherwise, lambda result: result[1])
    args = prompt, first, second, eos, eos
    otherwise = "nothing changes when pad_id is the same number as eos_id"
    yield judge(1, answer(*args), _pair_filled(*args), PAIR_WRONG, args, otherwise)


# --- last_scores


def last_scores(scores: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """The score at each row's last kept token, wherever the padding is.

    Only the last token has seen the whole sequence. transformers' `ForSequenceClassification`
    models return the same, except that they look for the last token whose id is not the
    padding's: with padding by EOS that is the token before the EOS.

    Args:
        scores: (B, T), one score per token.
        attention_mask: (B, T), 1 for real tokens; padding on the left or on the right.

    Returns:
        (B,).
    """
    import torch

    places = torch.arange(scores.shape[1], device=scores.device)
    last = (places * attention_mask).argmax(-1, keepdim=True)
    return scores.gather(1, last).squeeze(1)


def _last_looped(scores: Any, attention_mask: Any) -> Any:
    return [
        max((t, float(s)) for t, (s, m) in enumerate(zip(row, mask, strict=True)) if m)[1]
        for row, mask in zip(scores, attention_mask, strict=True)
    ]


def _last_of_kept(scores: Any, attention_mask: Any) -> Any:
    import torch

    pairs = zip(scores, attention_mask.bool(), strict=True)
    return torch.stack([row[keep][-1] for row, keep in pairs])


def _last_flipped(scores: Any, attention_mask: Any) -> Any:
    import torch

    last = attention_mask.shape[1] - 1 - attention_mask.flip(-1).argmax(-1)
    return scores[torch.arange(len(scores)), last]


def _score_at(scores: Any, place: Any) -> Any:
    return scores.gather(1, place.clamp(0, scores.shape[1] - 1)[:, None]).squeeze(1)


LAST_WRONG = {
    "last column": Wrong(
        lambda s, m: s[:, -1], "that is the last column; in a padded row it belongs to no token"
    ),
    "argmax of the mask": Wrong(
        lambda s, m: _score_at(s, m.argmax(-1)),
        "that is the first kept token: argmax of the mask finds the first of many ones",
    ),
    "mean": Wrong(
        lambda s, m: (s * m).sum(-1) / m.sum(-1),
        "not the mean over the tokens: only the last one has seen the whole sequence",
    ),
    "highest": Wrong(
        lambda s, m: s.masked_fill(m == 0, -1e9).max(-1).values,
        "that is the highest score of the row, not the last",
    ),
    "one after": Wrong(
        lambda s, m: _score_at(s, m.sum(-1)),
        "one place too far: the last of n tokens has index n - 1",
    ),
    "one before": Wrong(
        lambda s, m: _score_at(s, m.sum(-1) - 2),
        "one place too early: the last kept token is the EOS",
    ),
    "multiplied": Wrong(
        lambda s, m: (s * m)[:, -1], "multiplying by the mask gives 0 there, not the last score"
    ),
    "right padding only": Wrong(
        lambda s, m: _score_at(s, m.sum(-1) - 1),
        "right for padding on the right; with padding on the left the last token is elsewhere",
    ),
}


def _check_last(answer: Any, rng: random.Random) -> Iterator[Part]:
    import torch

    rows, length = rng.randint(3, 5), rng.randint(8, 11)
    kept = torch.tensor([[rng.randint(4, length - 2)] for _ in range(rows)])
    right = (torch.arange(length) < kept).long()
    scores = randn(rng, rows, length)
    scores[:, 1] += 6  # the highest is never the last
    args = scores, right
    otherwise = "find the index of the last 1 in each row of the mask and take the score there"
    yield judge(1, answer(*args), _last_looped(*args), LAST_WRONG, args, otherwise)
    full = torch.ones(1, length, dtype=torch.long)
    mixed = torch.cat([right.flip(-1), full, right[:1]])
    args = randn(rng, rows + 2, length), mixed
    otherwise = "rows may be padded on the left, on the right or not at all"
    yield judge(1, answer(*args), _last_looped(*args), LAST_WRONG, args, otherwise)


# --- calibration_error


def calibration_error(margins: torch.Tensor, wins: torch.Tensor, bins: int = 10) -> float:
    """Expected calibration error of p = sigmoid(margin) as the probability of a win.

    [0, 1] is cut into `bins` bins of equal width; each bin adds |mean win - mean p| in proportion
    to how many pairs fall into it (Guo et al. 2017, arXiv 1706.04599, eq. 3, for a binary event).

    Args:
        margins: (N,), score of the first response minus score of the second.
        wins: (N,), 1 where the first response was preferred, else 0.
        bins: how many; a p of exactly 0 or 1 belongs to the first or the last of them.

    Returns:
        A number from 0 (calibrated) to 1.
    """
    p = margins.double().sigmoid()
    place = (p * bins).long().clamp(max=bins - 1)
    total = 0.0
    for index in place.unique():
        inside = place == index
        gap = wins[inside].double().mean() - p[inside].mean()
        total += float(inside.double().mean() * gap.abs())
    return total


def _bins_of(margins: Any, wins: Any, bins: int) -> list[tuple[float, float, float, float]]:
    """(share of the pairs, mean win, mean p, middle) of each bin that is not empty."""
    inside: list[list[tuple[float, float]]] = [[] for _ in range(bins)]
    for margin, win in zip(margins.tolist(), wins.tolist(), strict=True):
        p = 1 / (1 + math.exp(-margin))
        inside[min(int(p * bins), bins - 1)].append((p, win))
    return [
        (
            len(pairs) / len(margins),
            sum(win for _, win in pairs) / len(pairs),
            sum(p for p, _ in pairs) / len(pairs),
            (index + 0.5) / bins,
        )
        for index, pairs in enumerate(inside)
        if pairs
    ]


def _gaps(margins: Any, wins: Any, bins: int) -> list[float]:
    return [abs(win - p) for _, win, p, _ in _bins_of(margins, wins, bins)]


def _ece_looped(margins: Any, wins: Any, bins: int) -> float:
    return sum(share * abs(win - p) for share, win, p, _ in _bins_of(margins, wins, bins))


def _ece_bincount(margins: Any, wins: Any, bins: int) -> Any:
    """n_k / N · |sum of wins - sum of p| / n_k: the counts cancel, so empty bins need no care."""
    p = margins.sigmoid()
    place = (p * bins).long().clamp(max=bins - 1)
    return (wins - p).new_zeros(bins).index_add_(0, place, wins - p).abs().sum() / len(p)


def _ece_of_margins(margins: Any, wins: Any, bins: int) -> Any:
    place = (margins * bins).long().clamp(0, bins - 1)
    return (wins - margins).new_zeros(bins).index_add_(0, place, wins - margins).abs().mean()


def _ece_last_lost(margins: Any, wins: Any, bins: int) -> Any:
    keep = margins.sigmoid() < 1
    return _ece_looped(margins[keep], wins[keep], bins) * int(keep.sum()) / len(keep)


def _ece_empty(margins: Any, wins: Any, bins: int) -> float:
    found = _bins_of(margins, wins, bins)
    return _ece_looped(margins, wins, bins) if len(found) == bins else math.nan


ECE_WRONG = {
    "empty bins": Wrong(_ece_empty, "an empty bin has no mean (0/0 is NaN): leave it out"),
    "unweighted": Wrong(
        lambda m, w, k: statistics.fmean(_gaps(m, w, k)),
        "weight each bin by its share of the pairs: full bins count more",
    ),
    "divided by bins": Wrong(
        lambda m, w, k: sum(_gaps(m, w, k)) / k,
        "do not divide by the number of bins: empty ones would pass as perfectly calibrated",
    ),
    "signed": Wrong(
        lambda m, w, k: (w - m.sigmoid()).mean(),
        "take the absolute gap in each bin, or too sure and too unsure cancel",
    ),
    "margins": Wrong(
        _ece_of_margins, "a margin is not a probability: take the sigmoid before the bins"
    ),
    "middle of the bin": Wrong(
        lambda m, w, k: sum(x[0] * abs(x[1] - x[3]) for x in _bins_of(m, w, k)),
        "compare with the mean p inside the bin, not with the middle of the bin",
    ),
    "squared": Wrong(
        lambda m, w, k: sum(x[0] * (x[1] - x[2]) ** 2 for x in _bins_of(m, w, k)),
        "the absolute gap of a bin, not its square",
    ),
    "largest": Wrong(
        lambda m, w, k: max(_gaps(m, w, k)),
        "that is the largest gap; the expected one is the weighted mean",
    ),
    "Brier": Wrong(
        lambda m, w, k: ((w - m.sigmoid()) ** 2).mean(),
        "that is the Brier score of single pairs: average within a bin first",
    ),
    "pair by pair": Wrong(
        lambda m, w, k: (w - m.sigmoid()).abs().mean(),
        "average wins and p within a bin first, then take the gap",
    ),
    "last lost": Wrong(_ece_last_lost, "a p of exactly 1 belongs to the last bin: it is lost here"),
}


def _check_ece(answer: Any, rng: random.Random) -> Iterator[Part]:
    import torch

    bins = rng.randint(5, 8)
    pairs: list[tuple[float, float]] = []
    occupied = rng.sample(range(bins), bins - 1)
    # counts of their own and gaps of both signs, so that a wrong weight or a lost sign shows
    for index, count in zip(occupied, rng.sample(range(3, 14), bins - 1), strict=True):
        low = index < bins / 2
        for number in range(count):
            p = (index + rng.uniform(0.1, 0.45)) / bins
            often = (number != 0) if low else (number == 0)
            pairs.append((math.log(p / (1 - p)), float(often)))
    rng.shuffle(pairs)
    margins, wins = (torch.tensor(column) for column in zip(*pairs, strict=True))
    args = margins, wins, bins
    otherwise = "sum over the bins of share of pairs times |mean win - mean p|"
    yield judge(2, answer(*args), _ece_looped(*args), ECE_WRONG, args, otherwise)
    sure = torch.tensor([rng.uniform(150.0, 250.0) * sign for sign in (1, 1, 1, -1, -1)])
    args = torch.cat([margins, sure]), torch.cat([wins, torch.tensor([0.0, 0, 1, 1, 0])]), bins
    otherwise = "a p of exactly 0 belongs to the first bin, a p of exactly 1 to the last"
    yield judge(1, answer(*args), _ece_looped(*args), ECE_WRONG, args, otherwise)


EXERCISES = [
    Exercise(
        name="bradley_terry_loss",
        chapter="04_reward_model",
        title="The Bradley–Terry loss",
        points=4,
        difficulty=2,
        minutes=10,
        hint="torch.nn.functional.logsigmoid stays finite where log(sigmoid(x)) does not",
        check=_check_bt,
        solution=bradley_terry_loss,
        other_right=[_bt_softplus, _bt_two_way_softmax, _bt_looped],
        wrong={
            **BT_WRONG,
            "detached": Wrong(
                lambda c, r, m: bradley_terry_loss(c, r.detach(), m), "no gradient reaches both"
            ),
        },
    ),
    Exercise(
        name="pair_ids",
        chapter="04_reward_model",
        title="A pair as the model sees it",
        points=3,
        difficulty=2,
        minutes=10,
        hint="build both lists first, then pad the shorter; a row's length gives its mask",
        check=_check_pair,
        solution=pair_ids,
        other_right=[_pair_filled, _pair_pad_sequence, _pair_lists],
        wrong=PAIR_WRONG,
    ),
    Exercise(
        name="last_scores",
        chapter="04_reward_model",
        title="One score per response",
        points=2,
        difficulty=2,
        minutes=8,
        hint="multiply torch.arange(T) by the mask: its largest entry is at the last kept token",
        check=_check_last,
        solution=last_scores,
        other_right=[_last_looped, _last_of_kept, _last_flipped],
        wrong=LAST_WRONG,
    ),
    Exercise(
        name="calibration_error",
        chapter="04_reward_model",
        title="Expected calibration error",
        points=3,
        difficulty=3,
        minutes=12,
        hint="int(p * bins) is the bin of p; skip the empty bins, and mind p = 1",
        check=_check_ece,
        solution=calibration_error,
        other_right=[_ece_looped, _ece_bincount],
        wrong=ECE_WRONG,
    ),
]
