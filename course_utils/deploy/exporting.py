"""A model that may go into service, in a folder of its own.

The folder holds the merged weights, the tokenizer with the course's template as its chat template
(so that a server builds the very prompt the model was trained on), generation settings that change
nothing about what is sampled, and a manifest: where the model comes from, what the gate found, and
a hash of every file. Like a run's, a folder appears under its name only when it is complete.
"""

from __future__ import annotations

import copy
import datetime
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from course_utils import models
from course_utils.errors import CourseError
from course_utils.paths import runs_dir
from course_utils.runs import MANIFEST as RUN_MANIFEST
from course_utils.runs import file_hash
from course_utils.templates import CHAT_TEMPLATE, format_prompt

from .gating import GateResult
from .probes import weights_hash
from .talk import messages

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from course_utils._setup import Course

MANIFEST = "export.json"
SAMPLES = (("Where does the bell heron live?", ""), ("Summarise.", "Two lines.\n\n  And more. "))


@dataclass(frozen=True)
class Export:
    """A model ready to be served.

    Attributes:
        folder: it.
        manifest: ``name``, ``source`` (the run), ``recipe`` (of the run, where it has one),
            ``weights``, ``gate``, ``versions``, ``date``, ``files`` (name -> SHA-256).
    """

    folder: Path
    manifest: dict[str, Any]

    @property
    def name(self) -> str:
        """What a client asks for, for example ``dpo-3fa9c1d2e4``."""
        return self.folder.name


def export(
    course: Course,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    gate: GateResult | None,
    source: Path | str,
    folder: Path | None = None,
) -> Export:
    """Write a model that passed the gate; see the module for what goes into the folder.

    Args:
        model: an adapter is merged into it.
        gate: the result for this very model.
        source: the folder of the run it comes from, or words that say how it was made.
        folder: exports stand in it; None takes the course's.

    Raises:
        CourseError: no result, a failing one, or one about other weights; a tokenizer whose served
            prompt would differ from the training's.
    """
    model = models.merged(model)
    weights = weights_hash(model)
    _require_pass(gate, weights)
    assert gate is not None
    parent = folder or exports_dir(course)
    parent.mkdir(parents=True, exist_ok=True)
    target = parent / f"{gate.candidate}-{weights[:10]}"
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=parent))
    try:
        _write(course, model, tokenizer, scratch)
        manifest = {
            "name": target.name,
            "weights": weights,
            **_origin(source),
            "gate": gate.to_json(),
            "versions": course.versions,
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "files": {p.name: file_hash(p) for p in sorted(scratch.iterdir())},
        }
        (scratch / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        scratch.chmod(0o755)  # mkdtemp makes it private
        shutil.rmtree(target, ignore_errors=True)
        os.replace(scratch, target)
    except BaseException:  # Ctrl-C included: the scratch folder must not stay
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return Export(target, manifest)


def exports_dir(course: Course) -> Path:
    """Where the profile's exports stand."""
    return runs_dir() / "exports" / course.profile.name


def load_export(folder: Path) -> Export:
    """An export whose files are those of its manifest, byte for byte.

    Raises:
        CourseError: no manifest, or a file missing, changed or added; the message names it.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = dict(manifest["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CourseError(
            f"{folder.name} holds no readable {MANIFEST}: export the model again."
        ) from error
    there = {path.name for path in folder.iterdir()} - {MANIFEST}
    problems = [f"{name} is missing" for name in sorted(files.keys() - there)]
    problems += [f"{name} was added" for name in sorted(there - files.keys())]
    problems += [
        f"{name} was changed"
        for name in sorted(files.keys() & there)
        if file_hash(folder / name) != files[name]
    ]
    if problems:
        raise CourseError(
            f"{folder.name} is not as it was exported ({', '.join(problems)}): export it again."
        )
    return Export(folder, manifest)


def _require_pass(gate: GateResult | None, weights: str) -> None:
    if gate is None:
        raise CourseError("This model has not been through the gate: pass gate=gate(...).")
    if not gate.passed:
        reasons = "; ".join(gate.reasons) or "it applied no rule"
        raise CourseError(f"The gate refuses {gate.candidate}: {reasons}.")
    if gate.weights != weights:
        raise CourseError(
            f"The gate's result is about other weights than these ({gate.weights or 'none'}, not "
            f"{weights}): probe and compare the model that is to go out."
        )


def _write(
    course: Course, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path
) -> None:
    from transformers import GenerationConfig

    settings = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=course.profile.max_new_tokens,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    before, model.generation_config = model.generation_config, settings
    try:
        models.save(model, serving_tokenizer(tokenizer), folder)
    finally:
        model.generation_config = before


def serving_tokenizer(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A copy whose chat template gives the tokens that the course's prompts have in training.

    Some tokenizers begin every text with a BOS, which a chat template has to write itself.

    Raises:
        CourseError: it gives others all the same.
    """
    served = copy.deepcopy(tokenizer)
    first = tokenizer("x")["input_ids"][:1]
    bos = tokenizer.bos_token_id
    served.chat_template = (
        "{{ bos_token }}" if bos is not None and first == [bos] else ""
    ) + CHAT_TEMPLATE
    for instruction, context in SAMPLES:
        if served_tokens(served, instruction, context) != _trained(tokenizer, instruction, context):
            raise CourseError(
                "This tokenizer splits a served prompt otherwise than the same text in training: "
                "such a model can be served through completions only."
            )
    return served


def served_tokens(
    tokenizer: PreTrainedTokenizerBase, instruction: str, context: str = ""
) -> list[int]:
    """The prompt as a server builds it from chat messages."""
    given = messages(instruction, context)
    ids = tokenizer.apply_chat_template(given, add_generation_prompt=True, return_dict=True)
    return list(ids["input_ids"])


def _trained(tokenizer: PreTrainedTokenizerBase, instruction: str, context: str) -> list[int]:
    return list(tokenizer(format_prompt(instruction, context))["input_ids"])


def _origin(source: Path | str) -> dict[str, Any]:
    """The run's name and recipe; no path, for those are about this machine."""
    if isinstance(source, str):
        return {"source": source, "recipe": None}
    try:
        recipe = json.loads((source / RUN_MANIFEST).read_text(encoding="utf-8"))["recipe"]
    except (OSError, ValueError, KeyError, TypeError):
        recipe = None
    return {"source": source.name, "recipe": recipe}
