"""AI labels for training pairs: asked in both orders, kept as a file, made into rows to train on.

Lee et al. 2023 (arXiv 2309.00267), section 3. Deliberate simplifications:

1. a label is the verdict of the two orders together; the paper trains its reward model on the
   soft label, which the rows keep and training here does not use;
2. a pair whose verdicts were opposite (a flip), a tie or an error is left out and counted;
3. the pairs are those that people labelled; in the paper the answers are an SFT model's samples.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from course_utils.data import read_jsonl
from course_utils.errors import CourseError
from course_utils.judge.measure import Preferences, to_preferences
from course_utils.judge.pairwise import Pair, PairJudge, Round, Verdict

if TYPE_CHECKING:
    from datasets import Dataset

    from course_utils._setup import Course
    from course_utils.judge import Backend

FILE = "labels.jsonl"  # in the folder of the stage "ai_labels"
PAIRS = 800  # labelled in a run; the first ones of those that DPO is trained on
ELSEWHERE = 200  # the same where a general model labels, which takes far longer
SMALL = 40
LINE = ("pair", "winners", "p_a", "whys", "error", "rule", "ruled")
Row = Mapping[str, Any]
Rows = list[dict[str, Any]]


def train_pairs(course: Course, seed: int = 0) -> Dataset:
    """The training pairs that are labelled, drawn and shuffled by `seed`."""
    from course_utils.preference import pipeline

    return pipeline.train_pairs(course, seed, pair_count(course))


def pair_count(course: Course) -> int:
    """How many pairs are labelled in a run."""
    return course.pick(full=PAIRS if is_world(course) else ELSEWHERE, small=SMALL)


def is_world(course: Course) -> bool:
    """Whether the pairs are of the closed world, where the world judge can judge."""
    return course.profile.preferences == "world"


def labeller(course: Course, quiet: bool = True) -> Backend:
    """Who labels training pairs: the world judge, elsewhere the specimen.

    Never a server, whatever COURSE_JUDGE says: thousands of calls are not made by the way.
    """
    from course_utils.judge import make_backend

    kind = "world" if is_world(course) else "specimen"
    return make_backend(kind, course=course, quiet=quiet)


def labeller_recipe(course: Course) -> dict[str, str]:
    """Which labeller, for recipes and records: in the closed world, the hash of its weights."""
    if not is_world(course):
        from course_utils.judge.specimen import NAME

        return {"judge": NAME}
    from course_utils.runs import file_hash
    from course_utils.world_judge.train import shipped

    weights = shipped() / "model.safetensors"
    return {"judge": "world", "weights": file_hash(weights)[:16] if weights.is_file() else "none"}


def as_pairs(rows: Iterable[Row]) -> list[Pair]:
    """Rows as a judge takes them: A is `chosen`, B is `rejected`. Both orders will be asked."""
    return [Pair(r["prompt"], r["chosen"], r["rejected"], r.get("case_id") or "") for r in rows]


def judge_pairs(
    rows: Iterable[Row], judge: PairJudge, on_step: Callable[[int, int], None] | None = None
) -> list[Verdict]:
    """One verdict per row, in order; A is the row's `chosen`. Errors are among them.

    Raises:
        CourseError: there are no rows, or the run stopped early (what was answered is in the
            backend's transcript).
    """
    pairs = as_pairs(rows)
    if not pairs:
        raise CourseError("There is no pair to label.")
    verdicts = judge.compare(pairs, on_step)
    if verdicts.stopped:
        raise CourseError(
            f"Labelling stopped with {len(verdicts.left)} of {len(pairs)} pairs left "
            f"({verdicts.stopped}): run it again to go on."
        )
    return list(verdicts)


def pair_id(row: Row) -> str:
    """Identifies prompt and both answers, in this order."""
    text = "\0".join(row[name] for name in ("prompt", "chosen", "rejected"))
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


# Kept as a file


def write_labels(
    path: Path, rows: Sequence[Row], verdicts: Sequence[Verdict], header: Mapping[str, Any]
) -> None:
    """A first line with `header` and the date, then a line per pair with the verdicts on it."""
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    lines = [json.dumps({**header, "date": date})]
    lines += [json.dumps(_line(row, v)) for row, v in zip(rows, verdicts, strict=True)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _line(row: Row, verdict: Verdict) -> dict[str, Any]:
    rounds = verdict.rounds
    return {
        "pair": pair_id(row),
        "winners": [r and r.winner for r in rounds],
        "p_a": [r and r.p_a for r in rounds],
        "whys": [r and r.why for r in rounds],
        "error": verdict.error,
        "rule": verdict.rule,
        "ruled": verdict.ruled,
    }


def read_labels(
    path: Path, rows: Sequence[Row], expected: Mapping[str, Any] | None = None
) -> list[Verdict]:
    """The verdicts on `rows` from a file of `write_labels`.

    Args:
        expected: what the header must say, `labeller_recipe` for example.

    Raises:
        CourseError: no such file, another judge's labels, or labels of other pairs.
    """
    header, *lines = read_jsonl(path)
    for name, value in (expected or {}).items():
        if header.get(name) != value:
            raise CourseError(
                f"{path.name} holds labels by another judge ({name} is {header.get(name)!r}, this "
                f"one's is {value!r}): label the pairs again."
            )
    same = len(lines) == len(rows) and all(
        set(LINE) <= set(line) and line["pair"] == pair_id(row)
        for line, row in zip(lines, rows, strict=True)
    )
    if not same:
        raise CourseError(f"{path.name} holds labels of other pairs: label these pairs again.")
    pairs = as_pairs(rows)
    return [_verdict(pair, line) for pair, line in zip(pairs, lines, strict=True)]


def _verdict(pair: Pair, line: Mapping[str, Any]) -> Verdict:
    given = zip("AB", line["winners"], line["p_a"], line["whys"], strict=True)
    rounds = [_round(*one) for one in given]
    return Verdict(pair, (rounds[0], rounds[1]), line["error"], line["rule"], line["ruled"])


def _round(shown_first: str, winner: str | None, p_a: float | None, why: str) -> Round | None:
    if winner is None:
        return None
    return Round(winner, None if winner == "tie" else winner == shown_first, why, p_a)


# Rows to train on


@dataclass(frozen=True)
class Feedback:
    """The same pairs twice: with the judge's labels and with people's.

    Attributes:
        ai, people: rows of prompt, chosen, rejected and the other columns of
            `data.load_preferences`, in the same order. The AI's have ``soft``, the probability
            that chosen is better (None without log-probs), and as ``margin`` 2 x confidence - 1.
        preferences: the counts of what was left out.
    """

    ai: Rows
    people: Rows
    preferences: Preferences

    @property
    def same(self) -> float:
        """Share of the kept pairs that both label alike."""
        alike = [a["chosen"] == p["chosen"] for a, p in zip(self.ai, self.people, strict=True)]
        return sum(alike) / len(alike)

    def left_out(self) -> dict[str, int]:
        """Pairs that were left out, by reason."""
        kinds = ("ties", "errors", "flips", "empty", "unsure")
        return {kind: getattr(self.preferences, kind) for kind in kinds}

    def __str__(self) -> str:
        return f"{self.preferences}; {self.same:.0%} of them labelled alike by both"


def feedback(
    rows: Sequence[Row], verdicts: Sequence[Verdict], min_confidence: float = 0.0
) -> Feedback:
    """Training rows from verdicts on `rows`, and the same pairs as people labelled them.

    Raises:
        CourseError: not one verdict per row, or no pair is left.
    """
    if len(rows) != len(verdicts):
        raise CourseError(f"There are {len(rows)} pairs and {len(verdicts)} verdicts on them.")
    ai: Rows = []
    people: Rows = []
    for row, verdict in zip(rows, verdicts, strict=True):
        for made in to_preferences([verdict], min_confidence):  # one, or none
            ai.append(_by_judge(row, made))
            people.append(dict(row))
    preferences = to_preferences(verdicts, min_confidence)
    if not ai:
        raise CourseError(f"No pair is left to train on: {preferences}.")
    return Feedback(ai, people, preferences)


def _by_judge(row: Row, made: Row) -> dict[str, Any]:
    """The row with the judge's sides. Gold and the votes go with their sides."""
    kept = {**row, "soft": made["soft"], "margin": 2 * (made["confidence"] or 0.5) - 1}
    if made["chosen"] == row["chosen"]:
        return kept
    return {
        **kept,
        "chosen": row["rejected"],
        "rejected": row["chosen"],
        "votes": 1 - row["votes"],
        "gold_chosen": row["gold_rejected"],
        "gold_rejected": row["gold_chosen"],
    }
