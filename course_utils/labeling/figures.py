"""The drawing of chapter 03: three stages of training and the data each of them needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from course_utils.plotting import COLOURS, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Each stage: its name, what it starts from, what it is given, what it makes.
STAGES = (
    ("1 · SFT", ("base model", "base"), "demonstrations\nprompt, response", ("SFT model", "sft")),
    (
        "2 · reward\n     model",
        ("SFT model", "sft"),
        "preferences\nprompt, chosen, rejected",
        ("reward model", "reward"),
    ),
    ("3 · PPO", ("SFT model", "sft"), "prompts alone", ("policy", "ppo")),
)
COLUMNS = {"start": 2.6, "data": 5.5, "result": 8.6}
WIDTH, HEIGHT, STEP = 1.9, 0.78, 1.6


def pipeline(counts: Sequence[str] = ("", "", "")) -> Axes:
    """Draw the three stages, one to a line.

    Args:
        counts: a line for each stage's data, such as how many there are.
    """
    import matplotlib.pyplot as plt

    style()
    _, ax = plt.subplots(figsize=(8.4, 4.4))
    ax.set(xlim=(0, 9.9), ylim=(-0.75, 4.0))
    ax.axis("off")
    for number, (name, start, data, result) in enumerate(STAGES):
        y = STEP * (2 - number)
        ax.text(0.05, y, name, va="center", weight="bold")
        _box(ax, COLUMNS["start"], y, *start)
        more = f"\n{counts[number]}" if counts[number] else ""
        _box(ax, COLUMNS["data"], y, data + more, "text", width=2.6, data=True)
        _box(ax, COLUMNS["result"], y, *result)
        _arrow(ax, (COLUMNS["start"] + WIDTH / 2, y), (COLUMNS["data"] - 1.3, y))
        _arrow(ax, (COLUMNS["data"] + 1.3, y), (COLUMNS["result"] - WIDTH / 2, y))
    _reuse(ax, (COLUMNS["result"], 2 * STEP), (COLUMNS["start"], STEP), "starts from it")
    ax.text(COLUMNS["result"] - 0.1, STEP / 2, "scores its answers", ha="right", fontsize=9)
    ax.annotate(
        "",
        (COLUMNS["result"], HEIGHT / 2),
        xytext=(COLUMNS["result"], STEP - HEIGHT / 2),
        arrowprops={"arrowstyle": "->", "color": COLOURS["reward"], "linestyle": "--"},
    )
    ax.set_title("Three stages: what each starts from, what it is given, what it makes")
    return ax


def _box(
    ax: Axes, x: float, y: float, text: str, colour: str, width: float = WIDTH, data: bool = False
) -> None:
    from matplotlib.patches import FancyBboxPatch

    shape = "square,pad=0" if data else "round,pad=0,rounding_size=0.15"
    ax.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - HEIGHT / 2),
            width,
            HEIGHT,
            boxstyle=shape,
            facecolor="white" if data else COLOURS[colour],
            edgecolor=COLOURS[colour],
            linestyle="--" if data else "-",
            alpha=1.0 if data else 0.35,
        )
    )
    ax.text(x, y, text, ha="center", va="center", fontsize=9 if data else 11)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    ax.annotate("", end, xytext=start, arrowprops={"arrowstyle": "->", "linewidth": 1.4})


def _reuse(ax: Axes, start: tuple[float, float], end: tuple[float, float], text: str) -> None:
    """A dashed line from under a result to above the box that takes it up again."""
    middle = (start[1] + end[1]) / 2
    path = [(start[0], start[1] - HEIGHT / 2), (start[0], middle), (end[0], middle)]
    ax.plot(*zip(*path, strict=True), color=COLOURS["sft"], linestyle="--", linewidth=1.2)
    ax.annotate(
        "",
        (end[0], end[1] + HEIGHT / 2),
        xytext=(end[0], middle),
        arrowprops={"arrowstyle": "->", "color": COLOURS["sft"], "linestyle": "--"},
    )
    ax.text(sum(x for x, _ in (start, end)) / 2, middle + 0.05, text, ha="center", fontsize=9)
