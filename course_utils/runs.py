"""Trained models, kept on disk: `ensure("sft", course)` gives a folder, training it if it must.

A run is named by its recipe (settings, seed, data, and the recipes of the runs it builds on), so a
changed recipe is a new run. A folder appears under its name only when it is complete; a manifest
with hashes is checked before anybody loads it; a lock keeps two kernels from training the same run.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import processes, room
from .errors import CourseError, unknown_name
from .models import TINY_BASE
from .paths import data_dir, runs_dir
from .readers import fingerprint

if TYPE_CHECKING:
    from ._setup import Course
    from .labeling.own import OwnLabels

HELP = "train a stage of the pipeline and keep it"
MANIFEST = "run.json"
# What the reader can mend with room or another folder; other errors pass as they are.
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.ENOTDIR)
# Stages that only train; the others sample, too, which sharded weights cannot do here.
SHARDABLE = ("sft", "reward", "reward_clean", "dpo", "ipo", "kto", "orpo")
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Stage:
    """One trained model of the pipeline.

    Attributes:
        name: what `ensure` is asked for.
        says: one line told to the learner before training.
        recipe: everything that changes the result, as plain data.
        train: writes the model into the folder it is given.
        needs: stages this one starts from; their recipes belong to this one's.
    """

    name: str
    says: str
    recipe: Callable[[Course], dict[str, Any]]
    train: Callable[[Course, Path, int, Progress], None]
    needs: tuple[str, ...] = ()


STAGES: dict[str, Stage] = {}


def register(stage: Stage) -> Stage:
    """Add a stage to those that `ensure` knows."""
    STAGES[stage.name] = stage
    return stage


def get_stage(name: str) -> Stage:
    if name not in STAGES:
        raise unknown_name("stage", name, sorted(STAGES))
    return STAGES[name]


def recipe(name: str, course: Course, seed: int) -> dict[str, Any]:
    """The whole recipe of a run, with those it builds on."""
    stage = get_stage(name)
    return {
        "stage": name,
        "profile": course.profile.name,
        "size": course.size,
        "seed": seed,
        "settings": stage.recipe(course),
        "needs": {need: recipe(need, course, seed) for need in stage.needs},
    }


def run_path(name: str, course: Course, seed: int = 0) -> Path:
    """Where the run stands, or would stand."""
    text = json.dumps(recipe(name, course, seed), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:10]
    return runs_dir() / course.profile.name / f"{name}-seed{seed}-{digest}"


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_complete(folder: Path) -> bool:
    """True when every file the manifest names is there, byte for byte."""
    try:
        files = json.loads((folder / MANIFEST).read_text())["files"]
        return bool(files) and all(
            file_hash(folder / name) == digest for name, digest in files.items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # whatever a torn file holds
        return False


def ensure(name: str, course: Course, seed: int = 0) -> Path:
    """Folder of the trained stage `name`; trains it, and what it needs, when it is missing.

    Raises:
        CourseError: unknown stage, or no room on the disk. Nothing half-written is left that a
            later call would take for a model.
    """
    from filelock import FileLock

    stage = get_stage(name)
    folder = run_path(name, course, seed)
    complete = partial(processes.agree, lambda: is_complete(folder), course)
    if complete():
        return folder
    _require_shardable(name)
    for need in stage.needs:
        ensure(need, course, seed)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Processes that train together would wait for each other if each asked for the lock.
        with FileLock(folder.with_suffix(".lock")) if processes.is_main() else nullcontext():
            if not complete():  # another kernel may have trained it while we waited
                _train_into(stage, course, seed, folder)
    except Exception as error:
        problem = _disk_problem(error)
        if problem is None:
            raise
        raise CourseError(
            f"Could not write the run {folder.name}: {problem}. "
            "Free some disk space, or set COURSE_RUNS to another folder."
        ) from error
    return folder


def _disk_problem(error: Exception) -> str | None:
    """What is wrong with the disk, or None when the error is about something else."""
    number = error.errno if isinstance(error, OSError) else None
    # safetensors and tokenizers are written in Rust, whose errors are no OSErrors.
    if number is None and (found := re.search(r"\(os error (\d+)\)", str(error))):
        number = int(found[1])
    return os.strerror(number) if number in DISK_ERRORS else None


def _sweep_scratch(folder: Path) -> None:
    """Remove what a killed process left. Only the holder of the run's lock may do so."""
    for left in folder.parent.glob(f".{folder.name}-*"):
        shutil.rmtree(left, ignore_errors=True)


def _require_shardable(name: str) -> None:
    if processes.is_sharded() and name not in SHARDABLE:
        raise CourseError(
            f"The stage {name!r} samples from its model, which weights spread over several "
            "processes cannot do here: start it with configs/accelerate/copies.yaml, one copy of "
            "the model for each GPU."
        )


def _train_into(stage: Stage, course: Course, seed: int, folder: Path) -> None:
    """Train and put the result in its place; of several processes only the main one writes it."""
    main = processes.is_main()
    if main:
        _sweep_scratch(folder)
        print(f"Training {stage.name} (seed {seed}): {stage.says}")
    began = time.time()
    # What the others write besides weights goes into a folder that is thrown away.
    where = folder.parent if main else None
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=where))
    try:
        with _bar(stage.name, show=main) as progress:
            stage.train(course, scratch, seed, progress)
        room.free()
        seconds = time.time() - began
        if main:
            _write_manifest(
                scratch,
                {
                    "recipe": recipe(stage.name, course, seed),
                    "versions": course.versions,
                    "seconds": round(seconds, 1),
                    "processes": processes.count(),
                },
            )
            shutil.rmtree(folder, ignore_errors=True)  # an incomplete folder of the same name
            os.replace(scratch, folder)
    finally:  # Ctrl-C included: the scratch folder must not stay
        shutil.rmtree(scratch, ignore_errors=True)
    processes.wait(course)  # nobody loads the run before it stands in its place
    if main:
        print(f"{stage.name} is ready after {seconds:.0f} s.")


def _write_manifest(folder: Path, record: dict[str, Any]) -> None:
    files = {
        str(p.relative_to(folder)): file_hash(p) for p in sorted(folder.rglob("*")) if p.is_file()
    }
    folder.chmod(0o755)  # mkdtemp makes it private
    (folder / MANIFEST).write_text(json.dumps({**record, "files": files}, indent=1) + "\n")


@contextmanager
def _bar(name: str, show: bool = True) -> Iterator[Progress]:
    from tqdm.auto import tqdm

    with tqdm(desc=name, unit="step", leave=False, mininterval=1, disable=not show) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress


def history(folder: Path) -> list[dict[str, float]]:
    """The loss history a stage left beside its model."""
    rows: list[dict[str, float]] = json.loads((folder / "history.json").read_text())
    return rows


def _sft_recipe(course: Course) -> dict[str, Any]:
    from .sft import SFTSettings

    return {
        **asdict(SFTSettings.of(course)),
        "base": base_fingerprint(course),
        "data": data_fingerprint(course),
    }


def base_fingerprint(course: Course) -> str:
    """Which base model: the hashes of the shipped or given weights, or the hub id."""
    base = course.profile.base_model
    folder = data_dir() / TINY_BASE if base == "tiny" else Path(base).expanduser()
    weights = sorted(folder.glob("*.safetensors"))
    return "-".join(file_hash(path)[:16] for path in weights) or base


def data_fingerprint(course: Course) -> str:
    """Which instruction data: the hash of the shipped or given file, or the hub id."""
    names = {"world": "world/instructions_train.jsonl", "english": "english/instructions.jsonl"}
    source = course.profile.instructions
    if source in names:
        return file_hash(data_dir() / names[source])[:16]
    return fingerprint(source)


def _train_sft(course: Course, out: Path, seed: int, progress: Progress) -> None:
    from . import data, models, sft

    model, tokenizer = models.load_base(course)
    rows = data.load_instructions(course, "train")
    _, losses = sft.train(course, model, tokenizer, rows, seed=seed, out=out, on_step=progress)
    (out / "history.json").write_text(json.dumps(losses) + "\n")


def _reward_recipe(course: Course, labels: str) -> dict[str, Any]:
    from .reward import RewardSettings

    settings = {
        **asdict(RewardSettings.of(course)),
        "labels": labels,
        "data": preference_fingerprint(course),
    }
    own = _own_labels(course, labels)
    # Without labels of one's own nothing is added, so the run is the same as before there were any.
    return {**settings, "own": own.recipe()} if own else settings


def _own_labels(course: Course, labels: str) -> OwnLabels | None:
    """The labels made in chapter 03 that a stage adds to its pairs; None when there are none."""
    from .labeling.own import own_labels

    found = own_labels(course) if labels == "votes" else None
    return found if found and found.pairs else None


def preference_fingerprint(course: Course) -> str:
    """Which preference pairs: the hash of the shipped or given file, or the hub id."""
    names = {"world": "world/preferences_train.jsonl", "english": "english/preferences.jsonl"}
    source = course.profile.preferences
    return file_hash(data_dir() / names[source])[:16] if source in names else fingerprint(source)


def _train_reward(course: Course, out: Path, seed: int, progress: Progress, labels: str) -> None:
    from . import data, reward

    rows = data.load_preferences(course, "train", labels)
    own = _own_labels(course, labels)
    if own:
        print(f"With {own}.")
        rows = own.added_to(rows)
    held_out = data.load_preferences(course, "validation", labels)
    model, tokenizer = reward.new_reward_model(run_path("sft", course, seed), course, seed=seed)
    _, losses = reward.train(
        course, model, tokenizer, rows, seed=seed, eval_rows=held_out, out=out, on_step=progress
    )
    (out / "history.json").write_text(json.dumps(losses) + "\n")


def _reward_stage(name: str, says: str, labels: str) -> Stage:
    return Stage(
        name,
        says,
        partial(_reward_recipe, labels=labels),
        partial(_train_reward, labels=labels),
        needs=("sft",),
    )


register(Stage("sft", "fine-tuning the base model on instruction data", _sft_recipe, _train_sft))


def _ppo_recipe(course: Course) -> dict[str, Any]:
    from .ppo import PPOConfig

    config = asdict(PPOConfig.of(course))
    del config["accelerator_kwargs"]  # where it runs, not what is trained
    return {**config, "steps": _ppo_steps(course)}


def _ppo_steps(course: Course) -> int:
    return int(course.pick(full=course.profile.ppo_steps, small=3))


def _train_ppo(course: Course, out: Path, seed: int, progress: Progress) -> None:
    from .ppo import PPOConfig, pipeline

    steps = _ppo_steps(course)
    trainer = pipeline.make_trainer(course, PPOConfig.of(course, seed=seed).shared(), steps)
    history = trainer.train(
        pipeline.train_prompts(course), pipeline.scorer(course), steps, on_step=progress
    )
    pipeline.save(trainer, out)
    (out / "history.json").write_text(json.dumps(history) + "\n")


def _preference_recipe(course: Course, method: str) -> dict[str, Any]:
    from .preference import PreferenceSettings, pipeline

    return {
        **asdict(PreferenceSettings.of(course, method)),
        "pairs": pipeline.pair_count(course),
        "data": preference_fingerprint(course),
        **({"base": base_fingerprint(course)} if method in pipeline.FROM_BASE else {}),
    }


def _train_preference(
    course: Course, out: Path, seed: int, progress: Progress, method: str
) -> None:
    from .preference import pipeline

    start = None if method in pipeline.FROM_BASE else run_path("sft", course, seed)
    *_, history = pipeline.train(course, method, start=start, seed=seed, out=out, on_step=progress)
    (out / "history.json").write_text(json.dumps(history) + "\n")


def _preference_stage(method: str, says: str, needs: tuple[str, ...] = ("sft",)) -> Stage:
    return Stage(
        method,
        says,
        partial(_preference_recipe, method=method),
        partial(_train_preference, method=method),
        needs=needs,
    )


register(_reward_stage("reward", "learning a score from the annotators' votes", "votes"))
register(_reward_stage("reward_clean", "learning a score from gold's own choices", "clean"))
register(
    Stage(
        "ppo",
        "PPO from the SFT model, against the reward model",
        _ppo_recipe,
        _train_ppo,
        needs=("sft", "reward"),
    )
)
register(_preference_stage("dpo", "DPO from the SFT model, on the votes"))
register(_preference_stage("ipo", "IPO from the SFT model, on the votes"))
register(_preference_stage("kto", "KTO from the SFT model, on the votes as thumbs"))
register(_preference_stage("orpo", "ORPO from the base model, on the votes", needs=()))


def _constitution_recipe(course: Course) -> dict[str, Any]:
    from .constitution.training import stage_recipe

    return stage_recipe(course)


def _train_constitution(course: Course, out: Path, seed: int, progress: Progress) -> None:
    from .constitution.training import train_stage

    train_stage(course, out, seed, progress)


register(
    Stage(
        "constitution",
        "SL-CAI: the SFT model fine-tuned on its own responses, revised by a constitution",
        _constitution_recipe,
        _train_constitution,
        needs=("sft",),
    )
)


def _spin_recipe(course: Course) -> dict[str, Any]:
    from . import spin

    return {
        **asdict(spin.spin_settings(course)),
        "rounds": spin.ROUNDS,
        "examples": course.profile.spin_examples,
        "prompts": _rl_prompts_fingerprint(course),
    }


def _rl_prompts_fingerprint(course: Course) -> str:
    """Which prompts methods practise on: the hash of the shipped file, or the hub id."""
    names = {"world": "world/prompts_rl.jsonl", "english": "english/preferences.jsonl"}
    source = course.profile.instructions
    return file_hash(data_dir() / names[source])[:16] if source in names else source


def _train_spin(course: Course, out: Path, seed: int, progress: Progress) -> None:
    from . import models, spin

    model, tokenizer, _ = spin.play(course, seed=seed, on_step=progress)
    models.save(model, tokenizer, out)


register(
    Stage(
        "spin",
        "SPIN: rounds of telling careful people's responses from the model's own",
        _spin_recipe,
        _train_spin,
        needs=("sft",),
    )
)


def _ai_labels_recipe(course: Course) -> dict[str, Any]:
    from .ai_feedback import comparison

    return comparison.labels_recipe(course)


def _make_ai_labels(course: Course, out: Path, seed: int, progress: Progress) -> None:
    from .ai_feedback import comparison

    comparison.make_labels(course, out, seed, progress)


def _rlaif_recipe(course: Course) -> dict[str, Any]:
    from .ai_feedback import comparison

    return comparison.policy_recipe(course)


def _train_rlaif(course: Course, out: Path, seed: int, progress: Progress) -> None:
    from .ai_feedback import comparison

    history = comparison.make_policy(course, out, seed, progress)
    (out / "history.json").write_text(json.dumps(history) + "\n")


register(
    Stage(
        "ai_labels",
        "a judge compares the training pairs, in both orders",
        _ai_labels_recipe,
        _make_ai_labels,
    )
)
register(
    Stage(
        "rlaif",
        "DPO from the SFT model, on the judge's labels",
        _rlaif_recipe,
        _train_rlaif,
        needs=("sft", "ai_labels"),
    )
)


def _rl_recipe(course: Course, method: str) -> dict[str, Any]:
    from .rl import training

    return {**training.recipe(course, method), "prompts": _rl_prompts_fingerprint(course)}


def _train_rl(course: Course, out: Path, seed: int, progress: Progress, method: str) -> None:
    from .rl import training

    *_, history = training.train(course, method, seed=seed, out=out, on_step=progress)
    (out / "history.json").write_text(json.dumps(history) + "\n")


def _rl_stage(name: str, says: str, method: str) -> Stage:
    return Stage(
        name,
        says,
        partial(_rl_recipe, method=method),
        partial(_train_rl, method=method),
        needs=("sft",),
    )


register(_rl_stage("rloo", "RLOO from the SFT model, on a reward that a program checks", "rloo"))
register(_rl_stage("grpo", "GRPO from the SFT model, on a reward that a program checks", "grpo"))
register(
    _rl_stage("ppo_verifiable", "PPO from the SFT model, on a reward that a program checks", "ppo")
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("stage", nargs="?", help="which stage; none lists them")
    parser.add_argument("--profile", default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", metavar="ID", help="another base model: a hub id or a folder")
    for kind in ("instructions", "preferences"):
        parser.add_argument(
            f"--{kind}", metavar="SOURCE", help=f"other {kind}: a file, a folder or a hub id"
        )


def main(args: argparse.Namespace) -> int:
    if args.stage is None:
        for stage in STAGES.values():
            print(f"{stage.name:12} {stage.says}")
        return 0
    get_stage(args.stage)  # say so before anything heavy is loaded
    from ._setup import setup

    course = setup(
        "train",
        profile=args.profile,
        seed=args.seed,
        model=args.model,
        instructions=args.instructions,
        preferences=args.preferences,
    )
    folder = ensure(args.stage, course, args.seed)
    if processes.is_main():
        print(folder)
    return 0
