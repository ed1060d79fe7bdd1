"""A made-up course of two chapters, for the tests of the authoring tools."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from course_utils.checks import Exercise, Part, Wrong, close

FIRST = """\
# %% [markdown]
# # 00 · Start
# What this is.

# %% tags=["setup"]
from course_utils.checks import check
from course_utils.report import report_metric, set_chapter
set_chapter("00_start")  # stands for setup("00_start")
print("ready")

# %%
# copy the list, then look at it
# %precision 3
import sys
print("noise", file=sys.stderr)
report_metric("half", 0.5)

# %%
%%time
x = 1
"""

SECOND = '''\
# %% [markdown]
# # 02 · Means
# Goal: the mean $\\bar x = \\frac{1}{n}\\sum_i x_i$ of kept numbers.

# %% tags=["setup"]
from course_utils.checks import check
import sample_course
from course_utils import exercises
exercises.get_exercise = {"masked_mean": sample_course.MASKED_MEAN}.__getitem__
print("ready for 02_means")

# %% [markdown]
# Write it.

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
'''


def _solution(values: list[float], keep: list[bool]) -> float:
    kept = [v for v, k in zip(values, keep, strict=True) if k]
    return sum(kept) / len(kept)


def _looped(values: list[float], keep: list[bool]) -> float:
    total = count = 0.0
    for value, kept in zip(values, keep, strict=True):
        total, count = total + value * kept, count + kept
    return total / count


def _in_place(values: list[float], keep: list[bool]) -> float:
    for index in range(len(values)):
        values[index] *= keep[index]
    return sum(values) / sum(keep)


def _check(answer: Any, rng: random.Random) -> Iterator[Part]:
    values = [rng.gauss(30 if i == 0 else 3, 1) for i in range(rng.randint(4, 9))]
    everything = answer(values, [True] * len(values))
    yield Part(1, close(everything, sum(values) / len(values)), "even with everything kept")
    keep = [False, True, True, *(rng.random() < 0.5 for _ in values[3:])]
    got, want = answer(values, keep), _solution(values, keep)
    mistake = "the mask is ignored" if close(got, everything) else "divide by the kept count"
    yield Part(2, close(got, want), mistake)


MASKED_MEAN = Exercise(
    name="masked_mean",
    chapter="02_means",
    title="the mean of what is kept",
    points=3,
    difficulty=2,
    minutes=5,
    hint="add the kept values and divide by how many there are.",
    check=_check,
    solution=_solution,
    other_right=[_looped],
    wrong={
        "mask ignored": Wrong(lambda v, k: sum(v) / len(v), "the mask is ignored"),
        "divided by all": Wrong(
            lambda v, k: sum(a * b for a, b in zip(v, k, strict=True)) / len(v), "kept count"
        ),
        "sum for mean": Wrong(
            lambda v, k: sum(a for a, b in zip(v, k, strict=True) if b), "even with everything"
        ),
        "input changed": Wrong(_in_place, "changes its input (argument 1)"),
        "crash": Wrong(lambda v, k: v[99], "IndexError"),
    },
)
EXERCISES = {"masked_mean": MASKED_MEAN}


def write_sources(folder: Path) -> dict[str, Path]:
    """Write both chapters to folder/source and return them by stem."""
    source = folder / "source"
    source.mkdir(parents=True)
    texts = {"00_start": FIRST, "02_means": SECOND}
    for stem, text in texts.items():
        (source / f"{stem}.py").write_text(text, encoding="utf-8")
    return {stem: source / f"{stem}.py" for stem in texts}
