"""The board as people read it: a line per method, means over its seeds, and verdicts."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from course_utils.differences import Difference
from course_utils.errors import CourseError, unknown_name

from . import statistics
from .rows import PER_PROMPT, Row

SFT = "sft"  # what the others are compared with


@dataclass(frozen=True)
class Column:
    """One column of the table.

    Attributes:
        heading: what stands above it.
        form: of its numbers, a format specification.
        better: 1 where more is better, -1 where less is, 0 where neither.
    """

    heading: str
    form: str
    better: int = 0


QUALITY = {
    "gold": Column("gold", "+.2f", 1),
    "win_gold": Column("wins (gold)", ".0%", 1),
    "win_judge": Column("wins (judge)", ".0%", 1),
    "harmful": Column("harmful", ".1%", -1),
    "declined": Column("declines", ".0%", 1),
    "over_refusal": Column("over-refusal", ".1%", -1),
    "unknown": Column("honest", ".0%", 1),
    "private": Column("private", ".0%", 1),
    "capability": Column("capability", ".1%", 1),
    "tax": Column("tax", "+.1%", -1),
    "length": Column("tokens", ".1f"),
    "finished": Column("ends", ".0%", 1),
    "kl": Column("KL", ".1f"),
    "proxy": Column("reward model", "+.2f"),
}
COST = {
    "seconds": Column("seconds", ".0f", -1),
    "peak_mb": Column("peak MB", ".0f", -1),
    "models": Column("models", ".0f", -1),
}
# A table of their own in `as_text`: all columns side by side are wider than a notebook's page.
LIMITS = ("harmful", "declined", "over_refusal", "unknown", "private", "capability", "tax")
PARTS = ("helpful", "honest", "harmless", "tone", "length", "clear")
UNKNOWN = "-"


def by_method(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows by method in the order of appearance, seeds rising."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.method, []).append(row)
    return {name: sorted(group, key=lambda r: r.seed) for name, group in found.items()}


def mean_of(group: Sequence[Row], column: str) -> float | None:
    """Mean over the rows that know it; None where none does."""
    known = [getattr(row, column) for row in group if getattr(row, column) is not None]
    return float(np.mean(known)) if known else None


def summarise(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """One dictionary per method: `method`, `seeds`, every column's mean, `parts`, `seen`, `marks`.

    ``tax`` is what SFT's capability is above the method's; None without a row of SFT.
    """
    groups = by_method(rows)
    start = mean_of(groups.get(SFT, []), "capability")
    lines = []
    for name, group in groups.items():
        line: dict[str, Any] = {"method": name, "seeds": len(group)}
        line |= {c: mean_of(group, c) for c in (*QUALITY, *COST) if c != "tax"}
        kept = line["capability"]
        line["tax"] = None if start is None or kept is None else start - kept
        line["parts"] = {p: float(np.mean([r.parts[p] for r in group])) for p in group[0].parts}
        line["seen"] = group[0].seen
        line["marks"] = tuple(dict.fromkeys(mark for row in group for mark in row.marks))
        lines.append(line)
    return lines


def shown(line: Mapping[str, Any], columns: Mapping[str, Column] | None = None) -> dict[str, str]:
    """Heading -> the number as text, for a table."""
    columns = columns or {**QUALITY, **COST}
    return {
        column.heading: UNKNOWN if line[name] is None else format(line[name], column.form)
        for name, column in columns.items()
    }


def label(method: str) -> str:
    """A method as people say it; a learner's name as it is."""
    from .leaderboard import METHODS

    return METHODS[method].label if method in METHODS else method


def scores(rows: Iterable[Row], column: str = "gold") -> dict[str, np.ndarray]:
    """method -> (S, N): that column for every prompt that all methods have a value for.

    Raises:
        CourseError: an unknown column, rows that were measured on other prompts, or no prompt that
            all have.
    """
    if column not in PER_PROMPT:
        raise unknown_name("column", column, PER_PROMPT)
    groups = by_method(rows)
    if len({row.prompts for group in groups.values() for row in group}) > 1:
        raise CourseError("These rows were measured on other prompts: they cannot be compared.")
    tables = {
        name: np.array([row.values[column] for row in group if column in row.values], dtype=float)
        for name, group in groups.items()
    }
    tables = {name: table for name, table in tables.items() if table.size}
    known = [~np.isnan(table).any(0) for table in tables.values()]
    keep = np.logical_and.reduce(known) if known else np.zeros(0, dtype=bool)
    if not keep.any():
        raise CourseError(f"No prompt has a value for {column} in all of these rows.")
    return {name: table[:, keep] for name, table in tables.items()}


def verdicts(
    rows: Iterable[Row], column: str = "gold", pairs: Sequence[tuple[str, str]] | None = None
) -> list[statistics.Comparison]:
    """Who is better than whom, corrected for the number of pairs; None compares all."""
    return statistics.compare_all(scores(rows, column), pairs, fixed=_fixed())


def _fixed() -> list[str]:
    """Methods of the record whose seeds sample one and the same model."""
    from .leaderboard import METHODS

    return [name for name, method in METHODS.items() if method.trains_once]


def against(rows: Iterable[Row], column: str = "gold", method: str = SFT) -> dict[str, Difference]:
    """Each other method minus `method`, each with its own 95% interval."""
    tables = scores(rows, column)
    if method not in tables:
        raise unknown_name("method", method, tables)
    found = statistics.compare_all(
        tables,
        [(name, method) for name in tables if name != method],
        fixed=_fixed(),
    )
    return {comparison.a: comparison.difference for comparison in found}


def as_text(rows: Sequence[Row]) -> str:
    """The board for a terminal or a page: what answers are worth, what they must not do, cost."""
    lines = sorted(summarise(rows), key=lambda line: -line["gold"])
    names = [label(line["method"]) for line in lines]
    blocks = []
    worth = {name: column for name, column in QUALITY.items() if name not in LIMITS}
    limits = {name: QUALITY[name] for name in LIMITS}
    for columns in (worth, limits, COST):
        table = [shown(line, columns) for line in lines]
        if columns is COST:
            table = [
                row | {"seeds": str(line["seeds"]), "seen": seen_text(line["seen"])}
                for row, line in zip(table, lines, strict=True)
            ]
        blocks.append(_aligned(names, table))
    notes = [f"{label(line['method'])}: {'; '.join(line['marks'])}" for line in lines]
    notes = [note for note, line in zip(notes, lines, strict=True) if line["marks"]]
    return "\n\n".join([*blocks, "\n".join(notes)]).rstrip()


def seen_text(seen: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in seen.items()) or UNKNOWN


def _aligned(names: Sequence[str], table: Sequence[Mapping[str, str]]) -> str:
    lines = [[name, *row.values()] for name, row in zip(names, table, strict=True)]
    grid = [["", *table[0]], *lines]
    widths = [max(len(line[i]) for line in grid) for i in range(len(grid[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in grid
    )


def report(rows: Sequence[Row]) -> None:
    """Add the metric ``board`` to the course's report: a heading, then one list per row.

    What a row does not know is an empty text. The numbers are not printed: the table shows them.
    """
    from course_utils.report import report_metric

    columns = [c for c in (*QUALITY, *COST) if c != "tax"]
    parts = list(rows[0].parts)
    table: list[list[Any]] = [["method", "seed", *columns, *parts, "tax", "seen", "marks"]]
    start = mean_of([row for row in rows if row.method == SFT], "capability")
    for row in rows:
        tax = None if start is None or row.capability is None else start - row.capability
        known = [*(getattr(row, c) for c in columns), *(row.parts[p] for p in parts), tax]
        cells = ["" if value is None else value for value in known]
        table.append([row.method, row.seed, *cells, seen_text(row.seen), "; ".join(row.marks)])
    with contextlib.redirect_stdout(io.StringIO()):
        report_metric("board", table)
