"""The over-optimisation experiment: gold and proxy against KL (Gao et al. 2022, 2210.10760)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from .. import best_of_n, data, runs
from ..evaluation import evaluate, scorer
from ..generation import generate
from . import pipeline
from .config import PPOConfig

if TYPE_CHECKING:
    from .._setup import Course

KL_COEFS = (0.0, 0.05)  # beside the profile's own
SEEDS = (0, 1, 2)
EVERY = 9
SAMPLES = 32  # per prompt, for best-of-n
SIZES = (1, 2, 4, 8, 16, 32)


def coefficients(course: Course) -> tuple[float, ...]:
    """The prices of KL that are compared, rising; the largest is the profile's default."""
    return tuple(sorted({*KL_COEFS, course.profile.kl_coef}))


def ppo_row(course: Course, kl_coef: float, seed: int, steps: int | None = None) -> dict[str, Any]:
    """Train with this price of KL, looking at gold, proxy and KL on the validation prompts.

    Returns:
        ``points``: (step, kl, gold, proxy); ``test``: gold on every test prompt at the end;
        ``texts``: what is answered to the first validation prompts at the end.
    """
    steps = steps or course.profile.ppo_steps
    config = PPOConfig.of(course, init_kl_coef=kl_coef, seed=seed)
    trainer = pipeline.make_trainer(course, config, course.profile.ppo_steps)
    rewards = pipeline.scorer(course)
    prompts = pipeline.train_prompts(course)
    cases = data.load_prompts(course, "validation")
    points: list[dict[str, float]] = []

    def look(done: int) -> pipeline.Measured:
        seen = pipeline.measure(course, trainer, rewards, cases)
        numbers = {"kl": seen.kl, "gold": seen.gold, "proxy": seen.proxy}
        points.append({"step": done} | {k: round(v, 4) for k, v in numbers.items()})
        return seen

    look(0)
    for done in range(EVERY, steps + 1, EVERY):
        trainer.train(prompts, rewards, done)
        last = look(done)
    test = evaluate(
        course,
        trainer.policy.pretrained_model,
        trainer.tokenizer,
        data.load_prompts(course, "test"),
    )
    return {
        "method": "ppo",
        "kl_coef": kl_coef,
        "seed": seed,
        "points": points,
        "test": [round(float(v), 3) for v in test.values],
        "texts": [r.text for r in last.evaluation.responses[:8]],
    }


def best_of_n_row(course: Course, seed: int) -> dict[str, Any]:
    """Gold and proxy of the best of n samples of the SFT model, and its gold on test prompts."""
    policy, tokenizer = pipeline.new_policy(course)
    rewards = pipeline.scorer(course)
    _, judge = scorer(course)
    profile = course.profile
    rows: dict[str, Any] = {"method": "best_of_n", "seed": seed, "points": []}
    cases = data.load_prompts(course, "validation")
    prompts = [data.prompt_of(case) for case in cases]
    responses = generate(
        policy.pretrained_model,
        tokenizer,
        prompts * SAMPLES,
        max_new_tokens=profile.max_new_tokens,
        batch_size=4 * profile.generation_batch_size,
        seed=seed,
    )
    gold = [judge(c, r).total for c, r in zip(cases * SAMPLES, responses, strict=True)]
    proxy = rewards(prompts * SAMPLES, [r.text for r in responses])
    table = best_of_n.as_table(proxy, len(cases))
    truth = best_of_n.as_table(gold, len(cases))
    for n in SIZES:
        point = {"n": n, "kl": best_of_n.kl(n)}
        point["gold"] = float(best_of_n.expected_best(table, truth, n).mean())
        point["proxy"] = float(best_of_n.expected_best(table, table, n).mean())
        rows["points"].append({k: round(v, 4) for k, v in point.items()})
    test = evaluate(
        course,
        policy.pretrained_model,
        tokenizer,
        data.load_prompts(course, "test"),
        seed=seed,
    )
    rows["test"] = [round(float(v), 3) for v in test.values]
    return rows


def rows(course: Course) -> Iterator[dict[str, Any]]:
    """Every run of the sweep."""
    for seed in SEEDS:
        yield best_of_n_row(course, seed)
    for kl_coef in coefficients(course):
        for seed in SEEDS:
            yield ppo_row(course, kl_coef, seed)


def configuration(course: Course) -> dict[str, Any]:
    """What the record's header says."""
    config = asdict(PPOConfig.of(course))
    for name in ("accelerator_kwargs", "tracker_kwargs", "tracker_project_name", "log_with"):
        del config[name]
    return {
        "ppo": config,
        "steps": course.profile.ppo_steps,
        "kl_coefs": coefficients(course),
        "seeds": SEEDS,
        "preferences": runs.preference_fingerprint(course),
        "prompts": "validation for the curves, test for the final gold",
    }
