"""What an exercise cell calls: run the learner's answer on fresh inputs and say what went wrong.

``check("name", answer)`` prints one of *not attempted*, *wrong* (with the likely mistake and a
hint) and *right*, and returns the points as a number. Exercises are declared with ``Exercise``;
``_proof.prove`` shows that a check accepts what is right and catches what is wrong.
"""

from __future__ import annotations

import contextlib
import linecache
import os
import random
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from course_utils._compare import close, randn, snapshot, unchanged
from course_utils._progress import record
from course_utils.errors import CourseError

__all__ = [
    "AnswerError",
    "Exercise",
    "NotAttemptedError",
    "Part",
    "Score",
    "Wrong",
    "check",
    "close",
    "evaluate",
    "randn",
]

NOT_ATTEMPTED, WRONG, RIGHT = "not attempted", "wrong", "right"
HIDDEN_SEEDS = 5
ANSWER_SECONDS = 20.0  # for one call of the learner's function; COURSE_CHECK_SECONDS overrides
TIME_UP = "your code had not returned after"


@dataclass(frozen=True)
class Part:
    """One verdict inside a check: `points` are earned if `ok`; else `mistake` names the cause."""

    points: float
    ok: bool
    mistake: str = ""


@dataclass(frozen=True)
class Wrong:
    """A plausible wrong answer, and words that the message about it must contain."""

    answer: Any
    says: str


Check = Callable[[Any, random.Random], Iterator[Part]]


@dataclass(frozen=True)
class Exercise:
    """One exercise: its card, its check, and the answers that prove the check.

    Attributes:
        name: lower-case identifier, unique in the course.
        chapter: stem of the chapter, for example ``"02_sft"``.
        title: a short line for the exercise card.
        points: points of the full answer.
        difficulty: 1 (a line) to 5 (an hour).
        minutes: how long it takes.
        hint: shown folded on the card, and after a wrong answer.
        check: generator ``(answer, rng) -> Part …``; the parts' points sum to `points`. `answer`
            is called like the learner's function. Draw every input and shape from `rng`.
        solution: the right answer, usually the twin in ``course_utils``.
        other_right: other correct ways of writing it (looped, other reduction, other dtype).
        wrong: plausible wrong answers by label.
        may_mutate: allow the answer to change its arguments.
    """

    name: str
    chapter: str
    title: str
    points: float
    difficulty: int
    minutes: int
    hint: str
    check: Check
    solution: Any
    other_right: list[Any] = field(default_factory=list)
    wrong: dict[str, Wrong] = field(default_factory=dict)
    may_mutate: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,40}", self.name):
            raise CourseError(f"Exercise name {self.name!r}: use a-z, 0-9 and _, at most 41.")
        if self.difficulty not in range(1, 6):
            raise CourseError(f"Exercise {self.name!r}: difficulty is 1 to 5.")
        if self.points <= 0 or self.minutes <= 0:
            raise CourseError(f"Exercise {self.name!r}: points and minutes are above zero.")


class Score(float):
    """Points as a number; nbgrader reads its repr as partial credit.

    `status` is "not attempted", "wrong" or "right"; `points` is the most that could be earned;
    `message` is the line that was printed.
    """

    points: float
    status: str
    message: str

    def __new__(cls, value: float, points: float, status: str, message: str) -> Score:
        # nbgrader raises on more than the maximum and gives full credit below zero
        score = super().__new__(cls, min(max(value, 0.0), points))
        score.points, score.status, score.message = points, status, message
        return score

    def __getnewargs__(self) -> tuple[float, float, str, str]:  # type: ignore[override]
        return float(self), self.points, self.status, self.message

    def __repr__(self) -> str:
        return float.__repr__(self)


class NotAttemptedError(Exception):
    """Raised under nbgrader, where only an error gives 0 points whatever else the cell shows."""


class AnswerError(Exception):
    """The learner's code raised; carries a readable account of it."""


class _MutatedError(Exception):
    """The learner's code changed one of its arguments."""


def check(name: str, fn: Any = None, hidden: bool = False) -> Score:
    """Check the answer to an exercise, print the verdict and return the points.

    Args:
        name: the exercise's name.
        fn: the learner's function (or value).
        hidden: run on several seeds and keep the lowest score.

    Raises:
        CourseError: no exercise has that name.
        NotAttemptedError: not attempted, while nbgrader is grading.
    """
    from course_utils.exercises import get_exercise

    exercise = get_exercise(name)
    score = evaluate(exercise, fn, _seeds(HIDDEN_SEEDS if hidden else 1))
    print(score.message)
    if score.status != NOT_ATTEMPTED:
        record(exercise, score)
    elif os.environ.get("NBGRADER_EXECUTION"):
        raise NotAttemptedError(f"{name} is not attempted")
    if os.environ.get("COURSE_CHECK_STRICT") and score.status != RIGHT:
        raise CourseError(f"COURSE_CHECK_STRICT is set, and {score.message}")
    return score


def evaluate(exercise: Exercise, fn: Any, seeds: list[int]) -> Score:
    """Score an answer on each seed and return the lowest; prints and records nothing."""
    scores = []
    for seed in seeds:
        # stderr would cost all points in nbgrader, so progress bars and warnings go to stdout
        with contextlib.redirect_stderr(sys.stdout):
            scores.append(_evaluate_once(exercise, fn, random.Random(seed)))
        if TIME_UP in scores[-1].message:  # once is enough to wait for
            break
    return min(scores)


def _seeds(count: int) -> list[int]:
    given = os.environ.get("COURSE_CHECK_SEED")
    if not given:
        return [int.from_bytes(os.urandom(4), "big") for _ in range(count)]
    try:
        return [int(given) + index for index in range(count)]
    except ValueError:
        raise CourseError(f"COURSE_CHECK_SEED is {given!r}: give a whole number.") from None


def _evaluate_once(exercise: Exercise, fn: Any, rng: random.Random) -> Score:
    if _blank(fn):
        return _not_attempted(exercise)
    answer = _Probe(fn, exercise.may_mutate) if callable(fn) else fn
    parts: list[Part] = []
    problem = ""
    try:
        for part in exercise.check(answer, rng):
            parts.append(part)  # not extend(): the parts before an exception count
    except (AnswerError, _MutatedError) as error:
        problem = str(error)
    except Exception as error:  # the check could not use what the answer returned
        problem = _unusable(answer, error)
    if isinstance(answer, _Probe) and answer.never_answered:
        return _not_attempted(exercise)
    earned = float(sum(part.points for part in parts if part.ok))
    mistakes = [part.mistake for part in parts if not part.ok]
    if not problem and not mistakes and earned >= exercise.points - 1e-9:
        return Score(earned, exercise.points, RIGHT, f"{_header(exercise, earned)} Right.")
    reason = mistakes[0] if mistakes else problem
    reason = (reason or "the result is not the expected one").rstrip(".")
    text = f"{_header(exercise, earned)} Wrong: {reason}. Hint: {exercise.hint}"
    return Score(earned, exercise.points, WRONG, text)


def _header(exercise: Exercise, earned: float) -> str:
    return f"{exercise.name}: {earned:g} of {exercise.points:g} points."


def _not_attempted(exercise: Exercise) -> Score:
    text = (
        f"{_header(exercise, 0)} Not attempted: replace the ... in the exercise's cell, run it, "
        "then run this cell again."
    )
    return Score(0.0, exercise.points, NOT_ATTEMPTED, text)


def _blank(value: Any) -> bool:
    return value is None or value is Ellipsis


class _TimeUpError(BaseException):
    """A call took too long. Not an Exception, so that a learner's own handler lets it pass."""


def _answer_seconds() -> float:
    given = os.environ.get("COURSE_CHECK_SECONDS")
    try:
        return float(given) if given else ANSWER_SECONDS
    except ValueError:
        return ANSWER_SECONDS


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Stop the code inside by a signal, where there are signals and nobody else uses the timer."""
    free = (
        hasattr(signal, "setitimer")
        and threading.current_thread() is threading.main_thread()
        and signal.getitimer(signal.ITIMER_REAL)[0] == 0
    )
    if not free or seconds <= 0:
        yield
        return

    def stop(*_: object) -> None:
        raise _TimeUpError(f"{TIME_UP} {seconds:g} seconds: look for a loop that does not end")

    before = signal.signal(signal.SIGALRM, stop)
    # again and again, for code that swallows the first one
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before or signal.SIG_DFL)


class _Probe:
    """The learner's callable, watched: what it returns, raises and changes."""

    def __init__(self, fn: Callable[..., Any], may_mutate: bool) -> None:
        self._fn, self._may_mutate = fn, may_mutate
        self._calls = self._answers = 0
        self._last: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fn, name)

    @property
    def never_answered(self) -> bool:
        return self._calls > 0 and self._answers == 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        given = {**{f"argument {i + 1}": arg for i, arg in enumerate(args)}, **kwargs}
        before = {} if self._may_mutate else {key: snapshot(arg) for key, arg in given.items()}
        self._calls += 1
        seconds = _answer_seconds()
        try:
            with _time_limit(seconds):
                result = self._fn(*args, **kwargs)
        except _TimeUpError as error:
            self._answers += 1
            raise AnswerError(str(error)) from None
        except NotImplementedError as error:
            raise AnswerError("your code raised NotImplementedError") from error
        except (Exception, SystemExit) as error:
            self._answers += 1
            raise AnswerError(_account(self._fn, error)) from error
        self._last = result
        self._answers += not _blank(result)
        for key, copied in before.items():
            if not unchanged(copied, given[key]):
                raise _MutatedError(f"your code changes its input ({key}); work on a copy of it")
        return result


def _account(fn: Any, error: BaseException) -> str:
    """Exception type, text, and the line of the learner's own code, without a stack."""
    text = " ".join(str(error).split())
    what = f"your code raised {type(error).__name__}" + (f": {text[:200]}" if text else "")
    home = getattr(getattr(fn, "__code__", None), "co_filename", None)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename == home] or [
        frame for frame in frames if "ipykernel_" in frame.filename
    ]
    if not own or own[-1].lineno is None:
        return what
    source = linecache.getline(own[-1].filename, own[-1].lineno).strip()
    return f"{what} (line {own[-1].lineno} of your cell: {source})"


def _unusable(answer: Any, error: Exception) -> str:
    """The check itself stumbled over the answer's value."""
    value = answer._last if isinstance(answer, _Probe) else answer
    if isinstance(answer, _Probe):
        kind = "your function returned"
        return f"{kind} None" if _blank(value) else f"{kind} {_describe(value)} ({_short(error)})"
    return f"your answer is {_describe(value)} ({_short(error)})"


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"


def _describe(value: Any) -> str:
    shape = getattr(value, "shape", None)
    kind = f"a {type(value).__name__}"
    return f"{kind} of shape {tuple(shape)}" if isinstance(shape, tuple) else kind
