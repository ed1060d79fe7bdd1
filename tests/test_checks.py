"""The exercise framework: three verdicts, partial credit, and no way to fail quietly."""

from __future__ import annotations

import json
import pickle
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sample_course
from sample_course import MASKED_MEAN

from course_utils import checks, exercises
from course_utils._progress import read_progress
from course_utils._proof import prove
from course_utils.checks import Exercise, Part, Wrong, check, close, evaluate
from course_utils.errors import CourseError


@pytest.fixture(autouse=True)
def _registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(exercises, "all_exercises", lambda: sample_course.EXERCISES)
    monkeypatch.setenv("COURSE_PROGRESS", str(tmp_path / "progress.json"))
    for name in ("COURSE_CHECK_SEED", "COURSE_CHECK_STRICT", "NBGRADER_EXECUTION"):
        monkeypatch.delenv(name, raising=False)


def _stub(values: list[float], keep: list[bool]) -> None: ...


def _not_implemented(values: list[float], keep: list[bool]) -> None:
    raise NotImplementedError


def _ignores_mask(values: list[float], keep: list[bool]) -> float:
    return sum(values) / len(values)


def _crashes(values: list[float], keep: list[bool]) -> float:
    return values[99]


@pytest.mark.parametrize("answer", [None, ..., _stub, _not_implemented])
def test_not_attempted(answer: Any, capsys: pytest.CaptureFixture[str]) -> None:
    score = check("masked_mean", answer)
    assert (score, score.status) == (0.0, "not attempted")
    assert capsys.readouterr().out.startswith("masked_mean: 0 of 3 points. Not attempted")


def test_right(capsys: pytest.CaptureFixture[str]) -> None:
    score = check("masked_mean", MASKED_MEAN.solution, hidden=True)
    assert (score, score.status, repr(score)) == (3.0, "right", "3.0")
    assert capsys.readouterr().out == "masked_mean: 3 of 3 points. Right.\n"


def test_partial_credit_names_the_mistake_and_the_hint() -> None:
    score = check("masked_mean", _ignores_mask)
    assert (score, score.status) == (1.0, "wrong")
    assert score.message == (
        "masked_mean: 1 of 3 points. Wrong: the mask is ignored. Hint: "
        "add the kept values and divide by how many there are."
    )


def test_an_exception_shows_type_text_and_the_learners_line() -> None:
    message = check("masked_mean", _crashes).message
    assert "your code raised IndexError: list index out of range" in message
    assert "of your cell: return values[99])" in message
    assert "checks.py" not in message and "Traceback" not in message


def test_points_before_an_exception_count() -> None:
    def answer(values: list[float], keep: list[bool]) -> float:
        if not all(keep):
            raise ValueError("no")
        return sum(values) / len(values)

    assert check("masked_mean", answer) == 1.0


def test_an_unusable_result_is_the_learners_mistake_not_ours() -> None:
    def shape(answer: Any, rng: random.Random) -> Iterator[Part]:
        yield Part(3, answer([1.0], [True]).shape == (1,))

    exercise = replace(MASKED_MEAN, check=shape)
    message = evaluate(exercise, lambda v, k: "text", [0]).message
    assert "your function returned a str" in message


def test_mutated_inputs_are_caught() -> None:
    import torch

    def exercise(value: Any) -> Exercise:
        def probe(answer: Any, rng: random.Random) -> Iterator[Part]:
            yield Part(3, answer(value) is not None)

        return replace(MASKED_MEAN, check=probe)

    def change(value: Any) -> Any:
        value[0] = 7
        return value

    for value in ([1, 2], np.ones(2), torch.ones(2), {0: 1}):
        assert "changes its input (argument 1)" in evaluate(exercise(value), change, [0]).message
    assert evaluate(exercise([1]), lambda v: v, [0]).status == "right"
    allowed = replace(exercise([1, 2]), may_mutate=True)
    assert evaluate(allowed, change, [0]).status == "right"


def test_fresh_inputs_each_time_unless_a_seed_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []

    def answer(values: list[float], keep: list[bool]) -> float:
        seen.append(values[0])
        return 0.0

    for _ in range(2):
        check("masked_mean", answer)
    assert seen[0] != seen[2]
    seen.clear()
    monkeypatch.setenv("COURSE_CHECK_SEED", "5")
    for _ in range(2):
        check("masked_mean", answer)
    assert seen[0] == seen[2]
    monkeypatch.setenv("COURSE_CHECK_SEED", "five")
    with pytest.raises(CourseError, match="whole number"):
        check("masked_mean", answer)


def test_hidden_keeps_the_lowest_score() -> None:
    calls = iter(range(1000))

    def lucky_once(values: list[float], keep: list[bool]) -> float:
        return MASKED_MEAN.solution(values, keep) if next(calls) < 2 else 0.0

    assert check("masked_mean", lucky_once, hidden=True) == 0.0


def test_stderr_would_cost_all_points_so_it_is_redirected(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def noisy(values: list[float], keep: list[bool]) -> float:
        print("progress", file=sys.stderr)
        return MASKED_MEAN.solution(values, keep)

    assert check("masked_mean", noisy) == 3.0
    captured = capsys.readouterr()
    assert captured.err == "" and "progress" in captured.out


def test_nbgrader_gets_an_error_for_not_attempted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    with pytest.raises(checks.NotAttemptedError):
        check("masked_mean", _stub)
    assert check("masked_mean", _ignores_mask) == 1.0


def test_strict_mode_is_an_error_unless_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COURSE_CHECK_STRICT", "1")
    assert check("masked_mean", MASKED_MEAN.solution) == 3.0
    with pytest.raises(CourseError, match="mask is ignored"):
        check("masked_mean", _ignores_mask)


def test_unknown_exercise_lists_the_legal_names() -> None:
    with pytest.raises(CourseError, match=r"Did you mean 'masked_mean'\?.*Legal exercise names"):
        check("maskd_mean", _stub)


def test_progress_is_kept_and_never_breaks_a_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check("masked_mean", _stub)
    assert read_progress() == {}
    check("masked_mean", MASKED_MEAN.solution)
    check("masked_mean", _ignores_mask)
    entry = read_progress()["masked_mean"]
    assert (entry["score"], entry["best"], entry["points"], entry["tries"]) == (1, 3, 3, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["progress.json"]
    for damaged in ("{half", "[]", '{"masked_mean": 3}', '{"masked_mean": {"best": null}}'):
        (tmp_path / "progress.json").write_text(damaged)
        assert check("masked_mean", MASKED_MEAN.solution) == 3.0
    monkeypatch.setenv("COURSE_PROGRESS", "/dev/null/nowhere/progress.json")
    assert check("masked_mean", MASKED_MEAN.solution) == 3.0


def test_score_survives_pickling_and_never_leaves_the_range() -> None:
    score = checks.Score(9.0, 3.0, "right", "m")
    assert score == 3.0 and checks.Score(-1.0, 3.0, "wrong", "m") == 0.0
    again = pickle.loads(pickle.dumps(score))
    assert (again, again.points, again.status, again.message) == (3.0, 3.0, "right", "m")


def test_close_across_kinds() -> None:
    import torch

    assert close(torch.tensor([1.0, 2.0], dtype=torch.float64), [1, 2])
    assert close(np.array([[1.0]]), 1.0) and close((1, 2), torch.tensor([1, 2]))
    assert close(torch.tensor(1.0, requires_grad=True), np.float32(1.00001))
    assert close(float("inf"), np.inf) and close(np.nan, float("nan"))
    assert close(1e6, 1e6 + 10) and not close(0.0, 1e-3)
    assert not close([1.0, 2.0], [[1.0, 2.0]]) and not close([1, 2], [1, 2, 3])
    assert not close(None, 0.0) and not close("1", 1) and not close([[1], [2, 3]], [1, 2, 3])
    assert not close(1.0, float("nan")) and not close(np.inf, -np.inf)


def test_checks_import_neither_torch_nor_numpy() -> None:
    code = (
        "import sys; from course_utils.checks import close; assert close([1], (1.0,));"
        "assert not {'torch', 'numpy'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_prove_accepts_a_sound_check() -> None:
    rows = prove(MASKED_MEAN)
    assert [row.kind for row in rows] == ["solution", "stub", "other right"] + ["wrong"] * 5
    assert all(row.ok for row in rows), [row for row in rows if not row.ok]


def test_prove_finds_a_check_that_cannot_fail() -> None:
    def asleep(answer: Any, rng: random.Random) -> Iterator[Part]:
        answer([1.0, 2.0, 3.0], [True, True, True])
        yield Part(3, True)

    rows = {row.label: row for row in prove(replace(MASKED_MEAN, check=asleep))}
    assert not rows["mask ignored"].ok and not rows["sum for mean"].ok


def test_prove_finds_a_wrong_message_and_a_refused_answer() -> None:
    wrong = {"mask ignored": Wrong(_ignores_mask, "the sign is flipped")}
    rows = prove(replace(MASKED_MEAN, wrong=wrong, other_right=[_ignores_mask]))
    assert [row.ok for row in rows] == [True, True, False, False]


def test_values_can_be_answers_too() -> None:
    def letter(answer: Any, rng: random.Random) -> Iterator[Part]:
        yield Part(3, answer == "b", "look at the dashed line again")

    exercise = replace(
        MASKED_MEAN,
        check=letter,
        solution="b",
        other_right=[],
        wrong={"the other": Wrong("a", "dashed line")},
    )
    assert all(row.ok for row in prove(exercise))


@pytest.mark.parametrize(
    "change", [{"name": "Bad Name"}, {"difficulty": 6}, {"points": 0}, {"minutes": 0}]
)
def test_a_malformed_exercise_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(CourseError):
        replace(MASKED_MEAN, **change)


def test_progress_file_is_json(tmp_path: Path) -> None:
    check("masked_mean", MASKED_MEAN.solution)
    assert json.loads((tmp_path / "progress.json").read_text())["masked_mean"]["best"] == 3.0
