"""The recorded board: every method trained with three seeds from the same SFT run, and measured.

``python -m course_utils sweep leaderboard`` makes it. A row takes a minute or two, so each is made
in a fresh process and kept as a piece; an interrupted sweep goes on where it stopped. What all
share: the SFT run and, for PPO and best-of-n, the reward model, both of the course's own seed. So
three seeds tell how much a method's own training varies, not how much those two would.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from course_utils import data, models, runs
from course_utils.errors import unknown_name
from course_utils.paths import data_dir, runs_dir

from .measuring import Costs, measure
from .policies import Policy, best_of, of_model
from .prompts import JUDGED, board_prompts, fingerprint
from .rows import FORMAT, Row
from .summary import by_method, mean_of

if TYPE_CHECKING:
    from course_utils._setup import Course

SEEDS = (0, 1, 2)
SAMPLES = 8  # of best-of-n
SFT_ROWS = "demonstrations"


@dataclass(frozen=True)
class Method:
    """One line of the comparison.

    Attributes:
        label: as people say it.
        learns_from: what it is given beside the model it starts from.
        models: held at once while it trains, as this course does it.
        textbook: the same without this course's thrift, where that differs.
        needs: methods of this table whose training has to come first.
        train: (course, seed) -> (policy, what it has seen); runs inside the stop-watch.
        settings: the training's, as plain data.
        trains_once: its seeds sample one and the same model, whose training is timed for seed 0.
        prepare: (course, seed) -> seconds of work that is kept and belongs to the training; runs
            before the stop-watch.
    """

    label: str
    learns_from: str
    models: int
    needs: tuple[str, ...]
    train: Callable[[Course, int], tuple[Policy, dict[str, int]]]
    settings: Callable[[Course], dict[str, Any]] = lambda course: {}
    textbook: str = ""
    trains_once: bool = False
    prepare: Callable[[Course, int], float] = lambda course, seed: 0.0


# The trainings. What they start from has been trained before the stop-watch runs.


def _base(course: Course, seed: int) -> tuple[Policy, dict[str, int]]:
    return of_model(course, *models.load_base(course)), {}


def _sft(course: Course, seed: int) -> tuple[Policy, dict[str, int]]:
    _timed_stage(course, "sft", seed)
    folder = runs.ensure("sft", course, course.seed)
    seen = {SFT_ROWS: len(data.load_instructions(course, "train"))}
    return of_model(course, *models.load_merged(folder, course)), seen


def _best_of_n(course: Course, seed: int) -> tuple[Policy, dict[str, int]]:
    from course_utils import reward

    _timed_stage(course, "reward", seed)
    score = reward.load_scorer(runs.ensure("reward", course, course.seed), course)
    sft = of_model(course, *models.load_merged(runs.ensure("sft", course, course.seed), course))
    return best_of(sft, score, SAMPLES), {"pairs": len(data.load_preferences(course, "train"))}


def _timed_stage(course: Course, name: str, seed: int) -> None:
    """Train a stage for the stop-watch; the result, the same as the course's run, goes."""
    if seed != SEEDS[0]:
        return
    with TemporaryDirectory() as scratch:
        runs.get_stage(name).train(course, Path(scratch), course.seed, lambda done, total: None)


def _ppo(course: Course, seed: int) -> tuple[Policy, dict[str, int]]:
    from course_utils.ppo import PPOConfig, pipeline

    config, steps = PPOConfig.of(course, seed=seed), ppo_steps(course)
    trainer = pipeline.make_trainer(course, config, steps)
    trainer.train(pipeline.train_prompts(course), pipeline.scorer(course), steps)
    model = trainer.policy.pretrained_model
    return of_model(course, model, trainer.tokenizer), {"prompts": steps * config.batch_size}


def ppo_steps(course: Course) -> int:
    """Batches of responses in one run, as in the stage ``ppo``."""
    return int(course.pick(full=course.profile.ppo_steps, small=3))


def _preferences(course: Course, seed: int, method: str) -> tuple[Policy, dict[str, int]]:
    from course_utils.preference import pipeline

    rows = pipeline.train_pairs(course, seed)
    model, tokenizer, _ = pipeline.train(course, method, rows=rows, seed=seed)
    return of_model(course, model, tokenizer), {"pairs": len(rows)}


def _spin(course: Course, seed: int) -> tuple[Policy, dict[str, int]]:
    from course_utils import spin

    model, tokenizer, played = spin.play(course, seed=seed)
    return of_model(course, model, tokenizer), {SFT_ROWS: sum(done.pairs for done in played)}


def _constitution(course: Course, seed: int) -> tuple[Policy, dict[str, int]]:
    from course_utils.constitution import training

    sft = models.load_merged(runs.ensure("sft", course, course.seed), course)
    practice = training.practise(course, *sft, training.world_backend(course), seed=seed)
    model, tokenizer, _ = training.fine_tune(course, practice, seed=seed)
    return of_model(course, model, tokenizer), {"prompts": len(practice.revisions.done)}


def _ppo_settings(course: Course) -> dict[str, Any]:
    from course_utils.ppo import PPOConfig

    config = asdict(PPOConfig.of(course))
    for name in ("accelerator_kwargs", "tracker_kwargs", "tracker_project_name", "log_with"):
        del config[name]
    return {**config, "steps": ppo_steps(course)}


def _preference_settings(course: Course, method: str) -> dict[str, Any]:
    from course_utils.preference import PreferenceSettings

    return asdict(PreferenceSettings.of(course, method))


def _sft_settings(course: Course) -> dict[str, Any]:
    from course_utils.sft import SFTSettings

    return asdict(SFTSettings.of(course))


def _reward_settings(course: Course) -> dict[str, Any]:
    from course_utils.reward import RewardSettings

    return {**asdict(RewardSettings.of(course)), "n": SAMPLES}


def _spin_settings(course: Course) -> dict[str, Any]:
    from course_utils import spin

    return spin.configuration(course)


def _label_pairs(course: Course, seed: int) -> float:
    """The judge's labels, made now or before; the seconds they took."""
    folder = runs.ensure("ai_labels", course, seed)
    return float(json.loads((folder / runs.MANIFEST).read_text())["seconds"])


def _rlaif(course: Course, seed: int) -> tuple[Policy, dict[str, int]]:
    from course_utils.ai_feedback.comparison import load_feedback
    from course_utils.preference import pipeline

    rows = load_feedback(course, seed).ai
    model, tokenizer, _ = pipeline.train(course, rows=rows, seed=seed)
    return of_model(course, model, tokenizer), {"pairs": len(rows)}


def _rlaif_settings(course: Course) -> dict[str, Any]:
    from course_utils.ai_feedback import comparison

    return {**comparison.policy_recipe(course), **comparison.labels_recipe(course)}


def _constitution_settings(course: Course) -> dict[str, Any]:
    from course_utils.constitution import training

    return training.stage_recipe(course)


def _by_preferences(label: str, method: str, learns_from: str = "pairs") -> Method:
    return Method(
        label,
        learns_from,
        models=1,
        needs=("sft",) if method != "orpo" else (),
        train=partial(_preferences, method=method),
        settings=partial(_preference_settings, method=method),
        textbook="2, with the reference" if method != "orpo" else "",
    )


METHODS: dict[str, Method] = {
    "base": Method("base model", "nothing", 0, (), _base, trains_once=True),
    "sft": Method("SFT", "demonstrations", 1, (), _sft, _sft_settings, trains_once=True),
    "best_of_n": Method(
        f"best of {SAMPLES}",
        "pairs, for a reward model",
        1,
        ("sft",),
        _best_of_n,
        _reward_settings,
        trains_once=True,
    ),
    "ppo": Method(
        "PPO",
        "prompts, and a reward model",
        3,  # policy with value head, reference, reward model
        ("sft", "best_of_n"),
        _ppo,
        _ppo_settings,
        textbook="4, with a value model of its own",
    ),
    "dpo": _by_preferences("DPO", "dpo"),
    "ipo": _by_preferences("IPO", "ipo"),
    "kto": _by_preferences("KTO", "kto", "thumbs"),
    "orpo": _by_preferences("ORPO", "orpo"),
    "constitution": Method(
        "Constitutional AI",
        "prompts, and a judge with principles",
        2,
        ("sft",),
        _constitution,
        _constitution_settings,
    ),
    "rlaif": Method(
        "RLAIF",
        "pairs without labels, and a judge",
        1,  # the judge first, then the policy
        ("sft",),
        _rlaif,
        _rlaif_settings,
        textbook="2, with the reference",
        prepare=_label_pairs,
    ),
    "spin": Method(
        "SPIN",
        "demonstrations by careful people",
        1,
        ("sft",),
        _spin,
        _spin_settings,
        textbook="2, with the reference",
    ),
}


def get_method(name: str) -> Method:
    """The method of that name; a CourseError lists the legal names otherwise."""
    if name not in METHODS:
        raise unknown_name("method", name, METHODS)
    return METHODS[name]


def board_row(course: Course, method: str, seed: int) -> dict[str, Any]:
    """Train one method with one seed and measure it: a row of the record.

    Seconds and memory are of the training alone; libraries are imported, and the stages it starts
    from are trained, before the stop-watch runs. For SFT and best-of-n the watch runs while the
    stage is trained once more; their rows of other seeds sample the same run.
    """
    from course_utils import costs
    from course_utils.preference.pipeline import TRAINERS

    line = get_method(method)
    runs.ensure("sft", course, course.seed)
    runs.ensure("reward", course, course.seed)  # of best-of-n and PPO, and the column `proxy`
    before = line.prepare(course, seed)
    libraries = costs.load_libraries(TRAINERS)
    began = time.perf_counter()
    policy, seen = line.train(course, seed)
    spent = costs.spent(began, libraries)
    timed = method != "base" and (seed == SEEDS[0] or not line.trains_once)
    found = Costs(
        seconds=round(spent["seconds"] + before, 1) if timed else None,
        peak_mb=spent["peak_mb"] if timed else None,
        models=line.models,
        seen=seen,
        settings=line.settings(course),
    )
    return measure(course, policy, name=method, seed=seed, costs=found).to_json()


def total_seconds(rows: Sequence[Row]) -> dict[str, float]:
    """method -> seconds of its training and of all that has to come before it; means over seeds.

    Methods that nobody timed are left out.
    """
    own = {name: mean_of(group, "seconds") for name, group in by_method(rows).items()}
    own["base"] = 0.0 if "base" in own else None
    totals = {}
    for name, method in METHODS.items():
        parts = [own.get(part) for part in (name, *method.needs)]
        known = [part for part in parts if part is not None]
        if len(known) == len(parts):
            totals[name] = sum(known)
    return totals


def piece_path(course: Course, method: str, seed: int) -> Path:
    """Where a row is kept until all are there; another configuration is another file."""
    text = json.dumps([configuration(course), course.size], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:10]
    folder = runs_dir() / "board" / f"pieces-{course.profile.name}-{course.size}-{digest}"
    return folder / f"{method}-{seed}.json"


def piece(course: Course, method: str, seed: int) -> dict[str, Any]:
    """One row: read where it was made before, else made now in a fresh process."""
    from course_utils.costs import in_fresh_process

    path = piece_path(course, method, seed)
    if path.is_file():
        row: dict[str, Any] = json.loads(path.read_text())
        return row
    row = in_fresh_process(board_row, course, method, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".tmp")
    scratch.write_text(json.dumps(row) + "\n")
    os.replace(scratch, path)
    return row


def rows(course: Course) -> Iterator[dict[str, Any]]:
    """Every row of the record."""
    for method in METHODS:
        for seed in SEEDS:
            yield piece(course, method, seed)


def configuration(course: Course) -> dict[str, Any]:
    """What the record's header says, and what a piece must have been made with."""
    return {
        "format": FORMAT,
        "settings": {name: method.settings(course) for name, method in METHODS.items()},
        "methods": list(METHODS),
        "seeds": SEEDS,
        "judged": JUDGED,
        "judge": _judge_hash(),
        "preferences": runs.preference_fingerprint(course),
        "prompts": fingerprint(board_prompts(course)),
    }


def _judge_hash() -> str:
    weights = data_dir() / "tiny_judge" / "model.safetensors"
    return runs.file_hash(weights)[:16] if weights.is_file() else "none"
