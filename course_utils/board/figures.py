"""The board as pictures: who beats whom, what is gained for how much KL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from course_utils import plotting
from course_utils.differences import Difference

from .rows import Row
from .statistics import Comparison
from .summary import by_method, label, mean_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# A colour and a sign for each, so that a picture can be read without colours, too.
SIGNS = {
    "base": ("#999999", "X"),
    "sft": ("#0072B2", "s"),
    "best_of_n": ("#CC79A7", "P"),
    "ppo": ("#D55E00", "D"),
    "dpo": ("#009E73", "o"),
    "ipo": ("#009E73", "v"),
    "kto": ("#009E73", "^"),
    "orpo": ("#009E73", "<"),
    "constitution": ("#E69F00", "h"),
    "rlaif": ("#E69F00", "p"),
    "spin": ("#56B4E9", ">"),
}
OWN = ("#333333", "*")
BETTER, WORSE, OPEN = "#9ecae1", "#fdae6b", "#f2f2f2"


def _sign(method: str) -> tuple[str, str]:
    return SIGNS.get(method, OWN)


def verdict_matrix(comparisons: Sequence[Comparison], *, title: str) -> Axes:
    """Row minus column: blue where the row is better, orange where it is worse, grey where open.

    The best method, by how much it beats the others on average, stands first.
    """
    from matplotlib.patches import Rectangle

    gaps: dict[str, dict[str, tuple[float, str]]] = {}
    turned = {"better": "worse", "worse": "better", "inconclusive": "inconclusive"}
    for c in comparisons:
        gaps.setdefault(c.a, {})[c.b] = c.difference.mean, c.verdict
        gaps.setdefault(c.b, {})[c.a] = -c.difference.mean, turned[c.verdict]
    order = sorted(gaps, key=lambda name: -np.mean([gap for gap, _ in gaps[name].values()]))
    size = 0.62 * len(order) + 1.6
    ax = plotting.axes(size + 1.0, size)
    ax.grid(visible=False)
    colour = {"better": BETTER, "worse": WORSE, "inconclusive": OPEN}
    for i, row in enumerate(order):
        for j, column in enumerate(order):
            if row == column or column not in gaps[row]:
                continue
            gap, verdict = gaps[row][column]
            box = Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor=colour[verdict], edgecolor="white")
            ax.add_patch(box)
            weight = "normal" if verdict == "inconclusive" else "bold"
            ax.text(j, i, f"{gap:+.2f}", ha="center", va="center", fontsize=9, fontweight=weight)
    names = [label(name) for name in order]
    ax.set_xticks(range(len(order)), names, rotation=40, ha="right")
    ax.set_yticks(range(len(order)), names)
    ax.set(xlim=(-0.5, len(order) - 0.5), ylim=(len(order) - 0.5, -0.5), title=title)
    ax.set_aspect("equal")
    return ax


def plane(
    rows: Iterable[Row], *, ys: Mapping[str, str], title: str = "", x: str = "kl"
) -> list[Axes]:
    """One panel per column of `ys` (column -> what the axis says) over KL; a dot is one seed.

    Methods without a KL, such as functions, are left out.
    """
    import matplotlib.pyplot as plt

    groups = by_method(rows)
    plotting.style()
    figure, panels = plt.subplots(1, len(ys), figsize=(4.4 * len(ys) + 1.6, 4.4), squeeze=False)
    for panel, (y, says) in zip(panels[0], ys.items(), strict=True):
        for name, group in groups.items():
            points = [(getattr(r, x), getattr(r, y)) for r in group]
            points = [p for p in points if None not in p]
            if not points:
                continue
            colour, marker = _sign(name)
            panel.plot(*zip(*points, strict=True), marker, color=colour, alpha=0.35, markersize=5)
            middle = np.mean(points, axis=0)
            panel.plot(*middle, marker, color=colour, markersize=10, label=label(name))
        panel.set(xlabel="KL from SFT (nats per response)", ylabel=says)
    handles, names = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right center")
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    return list(panels[0])


def forest(differences: Mapping[str, Difference], *, title: str, xlabel: str) -> Axes:
    """A dot with its 95% interval per method, the largest on top."""
    order = sorted(differences, key=lambda name: differences[name].mean)
    ax = plotting.axes(7.5, 0.36 * len(order) + 1.5)
    for i, name in enumerate(order):
        gap, (colour, marker) = differences[name], _sign(name)
        ax.plot([gap.low, gap.high], [i, i], color=colour, linewidth=2)
        ax.plot(gap.mean, i, marker, color=colour, markersize=8)
    ax.axvline(0, color=plotting.COLOURS["text"], linewidth=1)
    ax.set_yticks(range(len(order)), [label(name) for name in order])
    ax.set(title=title, xlabel=xlabel)
    return ax


def costs(rows: Iterable[Row], totals: Mapping[str, float]) -> Axes:
    """Gold over the seconds of everything a method needs, its own training included."""
    ax = plotting.axes(8.0, 4.2)
    for name, group in by_method(rows).items():
        gold = mean_of(group, "gold")
        if name not in totals or gold is None:
            continue
        colour, marker = _sign(name)
        ax.plot(totals[name], gold, marker, color=colour, markersize=10, label=label(name))
    ax.set(xlabel="seconds of training, all its stages", ylabel="mean gold on the test prompts")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return ax
