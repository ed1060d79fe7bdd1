"""A learner's own view of the course: ``course_utils.progress()``.

The module is not called ``progress``, so ``course_utils.progress`` is always the function.
"""

from __future__ import annotations

import html
from dataclasses import dataclass

from course_utils._progress import progress_file, read_progress


@dataclass(frozen=True)
class ChapterProgress:
    """One chapter: best points so far of those its checks can give.

    Attributes:
        chapter: such as ``"02_sft"``.
        points: the sum of the best results.
        possible: what all its exercises give together, free-text answers not counted.
        right: exercises with full points.
        tried: exercises with any result.
        exercises: how many there are.
    """

    chapter: str
    points: float
    possible: float
    right: int
    tried: int
    exercises: int

    @property
    def done(self) -> bool:
        """True when every exercise has full points."""
        return self.right == self.exercises

    @property
    def status(self) -> str:
        """done, begun or not begun."""
        return "done" if self.done else "begun" if self.tried else "not begun"


@dataclass(frozen=True)
class Progress:
    """Every chapter with exercises, in order; shows itself as a table."""

    chapters: tuple[ChapterProgress, ...]
    kept_in: str

    @property
    def points(self) -> float:
        """Points of all chapters."""
        return sum(chapter.points for chapter in self.chapters)

    @property
    def possible(self) -> float:
        """Points that all chapters can give."""
        return sum(chapter.possible for chapter in self.chapters)

    @property
    def done(self) -> tuple[str, ...]:
        """The chapters in which every exercise is right."""
        return tuple(chapter.chapter for chapter in self.chapters if chapter.done)

    def _head(self) -> str:
        return (
            f"{self.points:g} of {self.possible:g} points, "
            f"{len(self.done)} of {len(self.chapters)} chapters done"
        )

    def __repr__(self) -> str:
        width = max((len(chapter.chapter) for chapter in self.chapters), default=0)
        lines = [
            f"{c.chapter:{width}}  {c.points:5g} of {c.possible:<4g} "
            f"{c.right} of {c.exercises} right  {c.status}"
            for c in self.chapters
        ]
        return "\n".join([self._head(), *lines, self.kept_in])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td style='text-align:left'>{html.escape(c.chapter)}</td>"
            f"<td><progress value='{c.points:g}' max='{c.possible:g}'></progress></td>"
            f"<td>{c.points:g} of {c.possible:g}</td><td>{c.right} of {c.exercises}</td>"
            f"<td style='text-align:left'>{c.status}</td></tr>"
            for c in self.chapters
        )
        names = ("chapter", "", "points", "exercises right", "")
        head = "".join(f"<th style='text-align:left'>{name}</th>" for name in names)
        return (
            f"<p><b>{html.escape(self._head())}</b></p><table><thead><tr>{head}</tr></thead>"
            f"<tbody>{rows}</tbody></table><p><small>{html.escape(self.kept_in)}</small></p>"
        )


def progress() -> Progress:
    """Your points by chapter: the best result of each check, as this machine remembers it.

    Free-text answers are not counted; an instructor marks them.
    """
    from course_utils import exercises

    record = read_progress()
    by_chapter: dict[str, list[tuple[float, float]]] = {}
    tried: dict[str, int] = {}
    for exercise in exercises.all_exercises().values():
        best = _best(record.get(exercise.name, {}), exercise.points)
        by_chapter.setdefault(exercise.chapter, []).append((best, exercise.points))
        tried[exercise.chapter] = tried.get(exercise.chapter, 0) + (exercise.name in record)
    chapters = tuple(
        ChapterProgress(
            chapter,
            sum(best for best, _ in results),
            float(sum(points for _, points in results)),
            sum(best >= points for best, points in results),
            tried[chapter],
            len(results),
        )
        for chapter, results in sorted(by_chapter.items())
    )
    path = progress_file()
    kept = f"kept in {path}" if path else "nothing is kept: COURSE_PROGRESS is off"
    return Progress(chapters, kept)


def _best(entry: dict[str, object], points: float) -> float:
    """The best result on file, within what the exercise gives today; 0 if it is damaged."""
    best = entry.get("best")
    return min(max(float(best), 0.0), float(points)) if isinstance(best, int | float) else 0.0
