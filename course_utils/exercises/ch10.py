"""Exercises of chapter 10: SPIN's pairs, the loop of self-play, where a round leads."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

from course_utils.checks import Exercise, Part, Wrong, close
from course_utils.exercises._judge import judge

# --- spin_pairs


def spin_pairs(prompts: list[str], real: list[str], generated: list[str]) -> list[dict[str, str]]:
    """DPO's rows: people's response is chosen, the model's own rejected; equal ones are left out.

    Chen et al. 2024 (arXiv 2401.01335), algorithm 1.
    """
    return [
        {"prompt": prompt, "chosen": people, "rejected": own}
        for prompt, people, own in zip(prompts, real, generated, strict=True)
        if people != own
    ]


def _pairs_by_index(prompts: Any, real: Any, generated: Any) -> list[dict[str, str]]:
    rows = []
    for i in range(len(prompts)):
        if generated[i] != real[i]:
            rows.append({"rejected": generated[i], "chosen": real[i], "prompt": prompts[i]})
    return rows


def _pairs_filtered_after(prompts: Any, real: Any, generated: Any) -> list[dict[str, str]]:
    rows = [
        dict(prompt=p, chosen=r, rejected=g)
        for p, r, g in zip(prompts, real, generated, strict=True)
    ]
    return list(filter(lambda row: row["chosen"] != row["rejected"], rows))


def _pairs(prompts: Any, real: Any, generated: Any, keep: Callable[[str, str], bool]) -> Any:
    rows = _pairs_by_index(prompts, [f"{r}\0" for r in real], generated)
    kept = [{**row, "chosen": row["chosen"][:-1]} for row in rows]
    return [row for row in kept if keep(row["chosen"], row["rejected"])]


SPIN_WRONG = {
    "sides swapped": Wrong(
        lambda p, r, g: _pairs_by_index(p, g, r),
        "people's response is the chosen side",
    ),
    "equal ones kept": Wrong(
        lambda p, r, g: _pairs(p, r, g, lambda a, b: True),
        "a pair of two equal responses teaches nothing",
    ),
    "only equal ones": Wrong(
        lambda p, r, g: _pairs(p, r, g, lambda a, b: a == b),
        "you keep the equal ones and leave the others out",
    ),
    "prompt and response joined": Wrong(
        lambda p, r, g: _pairs_by_index(
            p,
            [a + b for a, b in zip(p, r, strict=True)],
            [a + b for a, b in zip(p, g, strict=True)],
        ),
        "the prompt has its own column",
    ),
    "longer one chosen": Wrong(
        lambda p, r, g: [
            {**row, "chosen": max(a, b, key=len), "rejected": min(a, b, key=len)}
            for row in _pairs_by_index(p, r, g)
            for a, b in [(row["chosen"], row["rejected"])]
        ],
        "it does not matter which response is longer",
    ),
    "every combination": Wrong(
        lambda p, r, g: [
            {"prompt": a, "chosen": b, "rejected": c}
            for a, b in zip(p, r, strict=True)
            for c in g
            if b != c
        ],
        "one pair for each prompt",
    ),
    "duplicate prompts dropped": Wrong(
        lambda p, r, g: list({row["prompt"]: row for row in _pairs_by_index(p, r, g)}.values()),
        "a prompt that occurs twice gives two pairs",
    ),
    "one shifted": Wrong(
        lambda p, r, g: _pairs_by_index(p, r, [*g[1:], g[0]]),
        "each response belongs to its own prompt",
    ),
}


def _check_pairs(answer: Any, rng: random.Random) -> Iterator[Part]:
    count = rng.randint(5, 8)
    words = ["moss", "a ferry", "low water", "noon", "bread and salt", "the bell", "no", "two eels"]
    prompts = [f"question {rng.randint(10, 99)}?" for _ in range(count)]
    prompts[-1] = prompts[0]
    real = [f"{rng.choice(words)} {i}" for i in range(count)]
    generated = [f"{rng.choice(words)}, {rng.choice(words)} {i}" for i in range(count)]
    shorter, same = rng.sample(range(1, count - 1), 2)
    generated[0], generated[shorter], generated[same] = f"{real[0]}, of course", "no", real[same]
    given = prompts, real, generated
    got, want = answer(*given), spin_pairs(*given)
    if got == want:
        yield Part(2, True)
        return
    named = (w.says for w in SPIN_WRONG.values() if got == w.answer(*given))
    yield Part(2, False, next(named, "a list of {'prompt', 'chosen', 'rejected'}, in order"))


# --- self_play


def self_play(
    model: Any,
    rounds: int,
    sample: Callable[[Any], Any],
    learn: Callable[[Any, Any, Any], Any],
) -> list[Any]:
    """The model after each round, of a game in which every round's opponent is the model so far.

    Args:
        sample: ``sample(opponent)`` gives its responses.
        learn: ``learn(model, opponent, responses)`` gives the trained model.
    """
    models = []
    for _ in range(rounds):
        opponent = model
        model = learn(model, opponent, sample(opponent))
        models.append(model)
    return models


def _self_play_recursive(model: Any, rounds: int, sample: Any, learn: Any) -> list[Any]:
    if rounds == 0:
        return []
    following = learn(model, model, sample(model))
    return [following, *_self_play_recursive(following, rounds - 1, sample, learn)]


def _self_play_listed(model: Any, rounds: int, sample: Any, learn: Any) -> list[Any]:
    models = [model]
    while len(models) <= rounds:
        models.append(learn(models[-1], models[-1], sample(models[-1])))
    return models[1:]


def _play(
    model: Any,
    rounds: int,
    sample: Any,
    learn: Any,
    *,
    opponent_of: Callable[[list[Any]], Any] = lambda models: models[-1],
    sampler_of: Callable[[list[Any]], Any] | None = None,
    learner_of: Callable[[list[Any]], Any] = lambda models: models[-1],
) -> list[Any]:
    """Self-play with chosen parts: each picks from the models so far, the first one included."""
    models = [model]
    for _ in range(rounds):
        opponent = opponent_of(models)
        source = opponent if sampler_of is None else sampler_of(models)
        models.append(learn(learner_of(models), opponent, sample(source)))
    return models[1:]


SELF_PLAY_WRONG = {
    "opponent stays the first": Wrong(
        lambda m, n, s, f: _play(m, n, s, f, opponent_of=lambda models: models[0]),
        "the opponent is updated each round: it is the model so far, not the first one",
    ),
    "samples of the first": Wrong(
        lambda m, n, s, f: _play(m, n, s, f, sampler_of=lambda models: models[0]),
        "the responses have to be the present opponent's, sampled anew each round",
    ),
    "always from the start": Wrong(
        lambda m, n, s, f: _play(m, n, s, f, learner_of=lambda models: models[0]),
        "a round goes on with the model of the round before",
    ),
    "everything from the start": Wrong(
        lambda m, n, s, f: _play(
            m, n, s, f, opponent_of=lambda ms: ms[0], learner_of=lambda ms: ms[0]
        ),
        "every round of yours begins with the first model again",
    ),
    "opponent one late": Wrong(
        lambda m, n, s, f: _play(m, n, s, f, opponent_of=lambda models: models[-2:][0]),
        "the opponent is one round late",
    ),
    "first model included": Wrong(
        lambda m, n, s, f: [m, *_play(m, n, s, f)],
        "return the model after each round; the one you were given is not among them",
    ),
    "one round too many": Wrong(
        lambda m, n, s, f: _play(m, n + 1, s, f),
        "count the rounds: yours are one too many",
    ),
    "one round too few": Wrong(
        lambda m, n, s, f: _play(m, n - 1, s, f),
        "count the rounds: yours are one short",
    ),
    "last model only": Wrong(
        lambda m, n, s, f: _play(m, n, s, f)[-1],
        "return a list: the model after each round",
    ),
    "model and opponent swapped": Wrong(
        lambda m, n, s, f: _play(
            m,
            n,
            s,
            f,
            opponent_of=lambda models: models[-1],
            learner_of=lambda models: s(models[-1]),
        ),
        "learn takes the model, the opponent and the responses, in this order",
    ),
}


def _check_self_play(answer: Any, rng: random.Random) -> Iterator[Part]:
    """Models are texts that tell how they were made, so nothing can be confused."""
    rounds = rng.randint(3, 5)
    first = f"SFT{rng.randint(10, 99)}"

    def sample(opponent: str) -> str:
        return f"text of {opponent}"

    def learn(model: str, opponent: str, responses: str) -> str:
        return f"[{model}|{opponent}|{responses}]"

    given = first, rounds, sample, learn
    got, want = answer(*given), self_play(*given)
    if got == want:
        yield Part(3, True)
        return
    named = (w.says for w in SELF_PLAY_WRONG.values() if got == w.answer(*given))
    yield Part(3, False, next(named, "each round: sample from the opponent, learn, keep the model"))


# --- best_round


def best_round(opponent: Any, people: Any, beta: float) -> Any:
    """The model that a round of SPIN would end at, could it train without limits: (N,).

    opponent x (people / opponent)^(1/beta), divided by its sum. Chen et al. 2024
    (arXiv 2401.01335), theorem 5.4.

    Args:
        opponent, people: (N,), probabilities of the same N responses.
    """
    weights = opponent * (people / opponent) ** (1 / beta)
    return weights / weights.sum()


def _round_in_logs(opponent: Any, people: Any, beta: float) -> Any:
    return (opponent.log() + (people.log() - opponent.log()) / beta).softmax(-1)


def _round_looped(opponent: Any, people: Any, beta: float) -> Any:
    import torch

    weights = [
        float(q) * (float(p) / float(q)) ** (1 / beta)
        for q, p in zip(opponent, people, strict=True)
    ]
    return torch.tensor([w / sum(weights) for w in weights])


def _normalised(weights: Any) -> Any:
    return weights / weights.sum()


ROUND_WRONG = {
    "power beta": Wrong(
        lambda q, p, b: _round_in_logs(q, p, 1 / b),
        "the power is 1/beta: a larger beta means a smaller step",
    ),
    "not normalised": Wrong(
        lambda q, p, b: q * (p / q) ** (1 / b),
        "probabilities sum to 1: divide by their sum",
    ),
    "upside down": Wrong(
        lambda q, p, b: _normalised(q * (q / p) ** (1 / b)),
        "the ratio is people's over the opponent's, or the model moves away from people",
    ),
    "no opponent": Wrong(
        lambda q, p, b: _normalised((p / q) ** (1 / b)),
        "the opponent's own probabilities stand in front of the ratio",
    ),
    "people in place of the opponent": Wrong(
        lambda q, p, b: _normalised(p * (p / q) ** (1 / b)),
        "the ratio multiplies the opponent's probabilities, not people's",
    ),
    "only people": Wrong(
        lambda q, p, b: _normalised(p ** (1 / b)),
        "where is the opponent? It is in the ratio, and in front of it",
    ),
    "factor for power": Wrong(
        lambda q, p, b: _normalised(q * (p / q) / b),
        "1/beta is a power, not a factor: a factor would drop out",
    ),
    "mixture": Wrong(
        lambda q, p, b: (1 - 1 / b) * q + p / b,
        "it is no mixture of the two: multiply, do not add",
    ),
}


def _check_round(answer: Any, rng: random.Random) -> Iterator[Part]:
    import torch

    for beta in (rng.choice((1.6, 2.0, 2.5)), rng.choice((0.4, 0.6))):
        count = rng.randint(4, 7)
        opponent, people = (
            _normalised(torch.tensor([rng.uniform(0.1, 1) for _ in range(count)])) for _ in "ab"
        )
        given = opponent, people, beta
        part = judge(
            1,
            answer(*given),
            _round_looped(*given),
            ROUND_WRONG,
            given,
            "compare with the formula, term by term",
        )
        yield part
    assert close(best_round(people, people, 0.7), people)  # people's own is where it rests


EXERCISES = [
    Exercise(
        name="best_round",
        chapter="10_spin",
        title="Where a round leads",
        points=2,
        difficulty=2,
        minutes=8,
        hint="a power of the ratio, times the opponent; then divide by the sum",
        check=_check_round,
        solution=best_round,
        other_right=[_round_in_logs, _round_looped],
        wrong=ROUND_WRONG,
    ),
    Exercise(
        name="spin_pairs",
        chapter="10_spin",
        title="The pairs of a round",
        points=2,
        difficulty=1,
        minutes=5,
        hint="zip the three lists; a response that equals people's makes no pair",
        check=_check_pairs,
        solution=spin_pairs,
        other_right=[_pairs_by_index, _pairs_filtered_after],
        wrong=SPIN_WRONG,
    ),
    Exercise(
        name="self_play",
        chapter="10_spin",
        title="The loop of self-play",
        points=3,
        difficulty=2,
        minutes=10,
        hint="at the start of a round the opponent is the model as it is now",
        check=_check_self_play,
        solution=self_play,
        other_right=[_self_play_recursive, _self_play_listed],
        wrong=SELF_PLAY_WRONG,
    ),
]
