"""Exercises of chapter 00: perplexity and sampling temperature."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from typing import Any

from course_utils.checks import Exercise, Part, Wrong, close, randn


def perplexity(logprobs: list[float]) -> float:
    """exp of the mean negative log-probability."""
    return math.exp(-sum(logprobs) / len(logprobs))


def _perplexity_product(logprobs: list[float]) -> float:
    product = 1.0
    for logprob in logprobs:
        product *= math.exp(logprob)
    return product ** (-1 / len(logprobs))


def _perplexity_torch(logprobs: list[float]) -> Any:
    import torch

    return torch.tensor(logprobs, dtype=torch.float64).neg().mean().exp()


def _check_perplexity(answer: Any, rng: random.Random) -> Iterator[Part]:
    size, count = rng.randint(3, 50), rng.randint(3, 8)
    uniform = answer([-math.log(size)] * count)
    if close(uniform, 1 / size, 1e-3):
        mistake = "the sign: log-probabilities are negative, perplexity is at least 1"
    elif close(uniform, math.log(size), 1e-3):
        mistake = "that is the mean negative log-probability; take exp of it"
    elif close(uniform, float(size) ** count, 1e-3):
        mistake = "the mean, not the sum: divide by the number of tokens"
    elif close(uniform, 2 ** math.log(size), 1e-3):
        mistake = "these are natural logarithms: take exp, not a power of 2"
    else:
        mistake = f"a model that gives every token probability 1/{size} has perplexity {size}"
    yield Part(1, close(uniform, float(size), 1e-3), mistake)
    logprobs = [-rng.uniform(0.01, 3.0) for _ in range(rng.randint(4, 9))]
    got, want = answer(logprobs), perplexity(logprobs)
    mistake = "average over the tokens before taking exp"
    if close(got, sum(math.exp(-x) for x in logprobs) / len(logprobs), 1e-3):
        mistake = "exp of the mean, not the mean of exp"
    yield Part(1, close(got, want, 1e-3), mistake)


def with_temperature(logits: Any, temperature: float) -> Any:
    """softmax(logits / temperature) over the last axis."""
    return (logits / temperature).softmax(-1)


def _temperature_by_hand(logits: Any, temperature: float) -> Any:
    scaled = logits.double() / temperature
    weights = (scaled - scaled.max(-1, keepdim=True).values).exp()
    return weights / weights.sum(-1, keepdim=True)


def _temperature_of_probabilities(logits: Any, temperature: float) -> Any:
    return (logits.log_softmax(-1) / temperature).softmax(-1)


def _unshifted(logits: Any, temperature: float) -> Any:
    weights = (logits / temperature).exp()
    return weights / weights.sum(-1, keepdim=True)


def _check_temperature(answer: Any, rng: random.Random) -> Iterator[Part]:
    logits = randn(rng, rng.randint(3, 6), rng.randint(7, 12))
    plain = answer(logits, 1.0)
    mistake = "at temperature 1 the result is softmax over the last axis"
    if close(plain, logits.softmax(0)):
        mistake = "the wrong axis: the vocabulary is the last one"
    elif close(plain, logits.log_softmax(-1)):
        mistake = "return probabilities, not their logarithms"
    yield Part(1, close(plain, logits.softmax(-1)), mistake)
    t = rng.choice((0.25, 0.5, 2.0, 4.0))
    got = answer(logits, t)
    mistake = "divide the logits by the temperature before the softmax"
    if close(got, (logits * t).softmax(-1)):
        mistake = "divide by the temperature, do not multiply: a low one sharpens"
    elif close(got, logits.softmax(-1) / t):
        mistake = "the temperature belongs inside the softmax, or the result does not sum to 1"
    elif close(got, logits.softmax(-1)):
        mistake = "the temperature is ignored"
    yield Part(1, close(got, with_temperature(logits, t)), mistake)
    large = logits * 500
    yield Part(
        1,
        close(answer(large, t), with_temperature(large, t)),
        "large logits overflow: exp needs the maximum taken off first, or use softmax",
    )


EXERCISES = [
    Exercise(
        name="perplexity",
        chapter="00_start",
        title="Perplexity from log-probabilities",
        points=2,
        difficulty=1,
        minutes=5,
        hint="average the log-probabilities, change the sign, take exp",
        check=_check_perplexity,
        solution=perplexity,
        other_right=[_perplexity_product, _perplexity_torch],
        wrong={
            "sign": Wrong(lambda x: math.exp(sum(x) / len(x)), "perplexity is at least 1"),
            "no exp": Wrong(lambda x: -sum(x) / len(x), "take exp of it"),
            "sum for mean": Wrong(lambda x: math.exp(-sum(x)), "divide by the number"),
            "mean of exp": Wrong(
                lambda x: sum(math.exp(-v) for v in x) / len(x), "not the mean of exp"
            ),
            "base 2": Wrong(lambda x: 2 ** (-sum(x) / len(x)), "natural logarithms"),
            "constant": Wrong(lambda x: 7.5, "every token probability"),
        },
    ),
    Exercise(
        name="with_temperature",
        chapter="00_start",
        title="Sampling temperature",
        points=3,
        difficulty=1,
        minutes=5,
        hint="torch has softmax; the temperature divides what goes into it",
        check=_check_temperature,
        solution=with_temperature,
        other_right=[_temperature_by_hand, _temperature_of_probabilities],
        wrong={
            "multiplied": Wrong(lambda x, t: (x * t).softmax(-1), "do not multiply"),
            "ignored": Wrong(lambda x, t: x.softmax(-1), "is ignored"),
            "outside": Wrong(lambda x, t: x.softmax(-1) / t, "inside the softmax"),
            "wrong axis": Wrong(lambda x, t: (x / t).softmax(0), "wrong axis"),
            "log": Wrong(lambda x, t: (x / t).log_softmax(-1), "not their logarithms"),
            "overflow": Wrong(_unshifted, "overflow"),
        },
    ),
]
