"""A tiny course to grade: two chapters whose kernels import neither torch nor numpy."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from nbformat import NotebookNode
from sample_course import MASKED_MEAN

from course_utils.authoring.build import build_notebook
from course_utils.checks import Exercise, Part

CHAPTER, OTHER = "03_sums", "00_start"
SETUP = """from course_utils.checks import check
import grading_course
from course_utils import exercises
exercises.get_exercise = grading_course.EXERCISES.__getitem__
"""

SUMS = f'''\
# %% [markdown]
# # 03 · Sums
# Goal: add things up.

# %% tags=["setup"]
{SETUP}print("ready for 03_sums")

# %% exercise="double"
def double(x: float) -> float:
    """Twice x."""
    ### BEGIN SOLUTION
    return 2 * x
    ### END SOLUTION

# %% test="double"
check("double", double)
### BEGIN HIDDEN TESTS
check("double", double, hidden=True)
### END HIDDEN TESTS

# %%
course_value = 10

# %% exercise="masked_mean"
def masked_mean(values: list[float], keep: list[bool]) -> float:
    """The mean of the kept values."""
    ### BEGIN SOLUTION
    kept = [v for v, k in zip(values, keep) if k]
    return sum(kept) / len(kept)
    ### END SOLUTION

# %% test="masked_mean"
check("masked_mean", masked_mean)
### BEGIN HIDDEN TESTS
check("masked_mean", masked_mean, hidden=True)
### END HIDDEN TESTS

# %% [markdown] answer="why_keep" points=2
# Because padding is not data.

# %% exercise="total"
def total(values: list[float]) -> float:
    """The sum of the values."""
    ### BEGIN SOLUTION
    return sum(values)
    ### END SOLUTION

# %% test="total"
check("total", total)
### BEGIN HIDDEN TESTS
check("total", total, hidden=True)
### END HIDDEN TESTS
'''

START = f'''\
# %% [markdown]
# # 00 · Start
# Nothing much.

# %% tags=["setup"]
{SETUP}print("ready for 00_start")

# %% exercise="negate"
def negate(x: float) -> float:
    """Minus x."""
    ### BEGIN SOLUTION
    return -x
    ### END SOLUTION

# %% test="negate"
check("negate", negate)
'''


def _exercise(name: str, chapter: str, check: Any, solution: Any, points: float) -> Exercise:
    return Exercise(name, chapter, name, points, 1, 1, "read its name.", check, solution)


def _number(expected: Any) -> Any:
    def check(answer: Any, rng: random.Random) -> Iterator[Part]:
        x = rng.uniform(1, 9)
        yield Part(2, answer(x) == expected(x), "not the value asked for")

    return check


def _check_total(answer: Any, rng: random.Random) -> Iterator[Part]:
    values = [rng.randint(1, 9) for _ in range(rng.randint(3, 6))]
    yield Part(1, answer(values) == sum(values), "not the sum")
    yield Part(2, answer([]) == 0, "the sum of nothing is 0")


EXERCISES = {
    "double": _exercise("double", CHAPTER, _number(lambda x: 2 * x), lambda x: 2 * x, 2),
    "masked_mean": replace(MASKED_MEAN, chapter=CHAPTER),
    "total": _exercise("total", CHAPTER, _check_total, sum, 3),
    "negate": _exercise("negate", OTHER, _number(lambda x: -x), lambda x: -x, 2),
}
RIGHT = {
    "double": "def double(x):\n    return x + x",
    "masked_mean": "def masked_mean(values, keep):\n"
    "    return sum(v for v, k in zip(values, keep) if k) / sum(keep)",
    "total": "def total(values):\n    return sum(values)",
    "why_keep": "Padding carries no meaning.",
}


def write_sources(folder: Path) -> Path:
    """Write the chapters' sources into folder/source and return that."""
    source = folder / "source"
    source.mkdir(parents=True)
    for stem, text in {OTHER: START, CHAPTER: SUMS}.items():
        (source / f"{stem}.py").write_text(text, encoding="utf-8")
    return source


def released(source: Path, chapter: str = CHAPTER) -> NotebookNode:
    """What a learner downloads."""
    return build_notebook(source / f"{chapter}.py", EXERCISES)


def cell(nb: NotebookNode, cell_id: str) -> NotebookNode:
    """The cell of that id."""
    return next(found for found in nb.cells if found.id == cell_id)


def answer(nb: NotebookNode, **answers: str) -> NotebookNode:
    """Fill in exercises and answers by name, as a learner would, below the comment."""
    for name, text in answers.items():
        if name == "why_keep":
            cell(nb, f"answer-{name}").source = f"{text}\n\n<!-- answer: {name} -->"
        else:
            cell(nb, f"exercise-{name}").source = f"# exercise: {name}\n{text}"
    return nb


def write(path: Path, nb: NotebookNode) -> Path:
    """Save a submission."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # nbformat would mend what is wrong with it
    path.write_text(json.dumps(nb), encoding="utf-8")
    return path


def without_metadata(nb: NotebookNode) -> NotebookNode:
    """As a hosted notebook gives it back: no cell metadata, no ids, an older format."""
    nb = copy.deepcopy(nb)
    for found in nb.cells:
        found.metadata = {}
        found.pop("id", None)
    nb.nbformat_minor = 4
    return nb
