"""A drawing for chapter 12."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from course_utils import plotting

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .gating import Check, GateResult

LABEL_WIDTH = 18  # characters in a line


def gate_plot(results: Sequence[GateResult]) -> None:
    """By how much each candidate is worse, with intervals, beside the margins: left of them passes.

    Shares on the left, in points; scores on the right. Hollow circles are rules that were not kept.
    """
    import matplotlib.pyplot as plt

    plotting.style()
    rules = [check.rule for check in results[0].checks]
    shares = [rule for rule in rules if rule.share]
    widths = [len(shares), max(1, len(rules) - len(shares))]
    figure, panels = plt.subplots(1, 2, figsize=(10, 3.8), width_ratios=[2, 1])
    for panel, share, height in zip(panels, (True, False), widths, strict=True):
        _panel(panel, results, share)
        panel.set_ylim(height - 0.5, -0.5)
    panels[0].set(title="By how much worse than in service", xlabel="points")
    panels[1].set(title="Dashed: margins", xlabel="score")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(results))


def _panel(panel: Axes, results: Sequence[GateResult], share: bool) -> None:
    names: list[str] = []
    for number, (result, colour) in enumerate(zip(results, plotting.CYCLE, strict=False)):
        checks = [check for check in result.checks if check.rule.share == share]
        names = [
            textwrap.fill(check.rule.says, LABEL_WIDTH, break_on_hyphens=False) for check in checks
        ]
        for row, check in enumerate(checks):
            place = row + 0.6 * ((number + 1) / (len(results) + 1) - 0.5)
            _point(panel, check, place, colour, result.candidate if row == 0 else None)
            if number == 0:
                margin = check.rule.margin * (100 if share else 1)
                panel.plot([margin] * 2, [row - 0.45, row + 0.45], "--", color="#444")
    panel.axvline(0, color=plotting.COLOURS["text"], linewidth=0.8)
    panel.set_yticks(range(len(names)), names)


def _point(panel: Axes, check: Check, place: float, colour: str, label: str | None) -> None:
    scale = 100 if check.rule.share else 1
    low, mean, high = (scale * v for v in (check.worse.low, check.worse.mean, check.worse.high))
    kept = check.outcome == "kept"
    panel.plot([low, high], [place, place], color=colour, linewidth=2)
    panel.plot(
        mean, place, "o", color=colour, markerfacecolor=colour if kept else "white", label=label
    )
