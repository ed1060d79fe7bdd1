"""The course's figures: one style, colours for colour-blind readers too, labelled axes."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.display import HTML
    from matplotlib.axes import Axes

# Okabe and Ito's palette (Color Universal Design, 2008). One colour per policy, everywhere.
COLOURS = {
    "base": "#999999",
    "sft": "#0072B2",
    "reward": "#CC79A7",
    "ppo": "#D55E00",
    "dpo": "#009E73",
    "gold": "#E69F00",
    "proxy": "#56B4E9",
    "text": "#333333",
}
CYCLE = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#999999")
# Differs in lightness as well as in hue, and the kept tokens are underlined too.
KEPT_STYLE = "background:#cfe8f7;border-bottom:2px solid #0072B2"
DROPPED_STYLE = "color:#777"


def style() -> None:
    """Set matplotlib's defaults for the course. Called by every function here."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    mpl.rcParams.update(
        {
            "figure.figsize": (7.0, 3.6),
            "figure.dpi": 100,
            "savefig.dpi": 100,
            "font.size": 11,
            "axes.titlesize": 12,
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.3,
            "axes.axisbelow": True,
            "axes.prop_cycle": plt.cycler(color=CYCLE),
            "legend.frameon": False,
            "figure.constrained_layout.use": True,
        }
    )


def axes(width: float = 7.0, height: float = 3.6) -> Axes:
    """One pair of axes in the course's style."""
    import matplotlib.pyplot as plt

    style()
    _, ax = plt.subplots(figsize=(width, height))
    return ax


def colours(names: Iterable[str]) -> list[str]:
    """A colour for each name: its policy's own if it begins with one, else the next free one.

    No colour is given twice while the palette lasts.
    """
    own = {name: COLOURS.get(name.split(" ")[0].lower()) for name in names}
    taken: set[str] = set()
    given: dict[str, str] = {}
    for name, colour in own.items():
        if colour and colour not in taken:
            given[name] = colour
            taken.add(colour)
    free = [c for c in CYCLE if c not in taken]
    rest = cycle(CYCLE)
    for name in own:
        if name not in given:
            given[name] = free.pop(0) if free else next(rest)
    return [given[name] for name in own]


def smooth(values: Sequence[float], weight: float = 0.8) -> list[float]:
    """Exponential moving average, corrected for its start."""
    out: list[float] = []
    total = norm = 0.0
    for value in values:
        total = weight * total + (1 - weight) * value
        norm = weight * norm + (1 - weight)
        out.append(total / norm)
    return out


def learning_curve(
    histories: Mapping[str, Sequence[Mapping[str, float]]],
    key: str = "loss",
    *,
    title: str,
    ylabel: str,
    floor: tuple[str, float] | None = None,
) -> Axes:
    """A faint raw line under a smooth one for each history (rows with ``step`` and `key`).

    `floor` draws a dashed reference line with its name.
    """
    ax = axes()
    # More histories than colours: the colours come round again, no line is left out.
    for (name, rows), colour in zip(histories.items(), cycle(CYCLE), strict=False):
        steps, values = [r["step"] for r in rows], [r[key] for r in rows]
        ax.plot(steps, values, color=colour, alpha=0.25)
        ax.plot(steps, smooth(values), color=colour, label=name, linewidth=2)
    if floor:
        ax.axhline(floor[1], color=COLOURS["text"], linestyle="--", linewidth=1, label=floor[0])
    ax.set(title=title, xlabel="optimiser step", ylabel=ylabel)
    ax.legend()
    return ax


def bars(
    values: Mapping[str, float],
    intervals: Mapping[str, tuple[float, float]],
    *,
    title: str,
    ylabel: str,
    limits: tuple[float, float] | None = None,
    percent: bool = False,
) -> Axes:
    """One bar per name with its 95% interval, the number written beside it."""
    ax = axes()
    ax.grid(axis="x", visible=False)
    for i, ((name, value), colour) in enumerate(zip(values.items(), colours(values), strict=True)):
        low, high = intervals[name]
        ax.bar(i, value, color=colour, width=0.6)
        ax.errorbar(
            i,
            value,
            yerr=[[max(0, value - low)], [max(0, high - value)]],
            color=COLOURS["text"],
            capsize=5,
            linewidth=1.5,
        )
        label = f"{value:.0%}" if percent else f"{value:.2f}"
        ax.annotate(
            label,
            (i, max(high, value, 0)),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center",
            va="bottom",
        )
    ax.axhline(0, color=COLOURS["text"], linewidth=0.8)
    ax.set_xticks(range(len(values)), list(values))
    ax.set(title=title, ylabel=ylabel)
    if percent:
        from matplotlib.ticker import PercentFormatter

        ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    if limits:
        ax.set_ylim(*limits)
    else:
        ax.margins(y=0.15)
    return ax


def grouped_bars(groups: Mapping[str, Mapping[str, float]], *, title: str, ylabel: str) -> Axes:
    """For each name in `groups` a colour; for each key a cluster of bars."""
    ax = axes(8.0)
    ax.grid(axis="x", visible=False)
    keys = list(next(iter(groups.values())))
    width = 0.8 / len(groups)
    for i, ((name, values), colour) in enumerate(zip(groups.items(), colours(groups), strict=True)):
        positions = [k - 0.4 + width * (i + 0.5) for k in range(len(keys))]
        ax.bar(positions, [values[k] for k in keys], width=width, label=name, color=colour)
    ax.axhline(0, color=COLOURS["text"], linewidth=0.8)
    long = max(map(len, keys)) > 8 and len(keys) > 6
    ax.set_xticks(
        range(len(keys)), keys, rotation=30 if long else 0, ha="right" if long else "center"
    )
    ax.set(title=title, ylabel=ylabel)
    ax.legend()
    return ax


def calibration_curve(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float], Sequence[int]]],
    *,
    title: str,
    xlabel: str = "what the model claims",
    ylabel: str = "what came true",
) -> Axes:
    """Claimed against observed shares, from 0.5 to 1, with the diagonal of a calibrated model.

    Each curve is (predicted, observed, counts), one value per bin (see `reward.calibration`);
    whiskers are Wilson's 95% intervals of the observed shares.
    """
    from .evaluation import rate_interval

    ax = axes(5.0, 4.2)
    ax.plot([0.5, 1], [0.5, 1], color=COLOURS["text"], linestyle="--", label="calibrated")
    for (name, bins), colour in zip(curves.items(), colours(curves), strict=True):
        predicted, observed, counts = bins
        ranges = [
            rate_interval(round(share * n), n)
            for share, n in zip(observed, map(int, counts), strict=True)
        ]
        # A tie counts half, so a share may lie a hair outside the interval of its rounded count.
        below = [max(0.0, o - low) for o, (low, _) in zip(observed, ranges, strict=True)]
        above = [max(0.0, high - o) for o, (_, high) in zip(observed, ranges, strict=True)]
        ax.errorbar(
            predicted, observed, [below, above], color=colour, marker="o", capsize=4, label=name
        )
    ax.set(title=title, xlabel=xlabel, ylabel=ylabel)
    ax.legend()
    return ax


def masked_tokens(tokens: Sequence[str], kept: Sequence[bool]) -> HTML:
    """The tokens of one example, those that count underlined and shaded."""
    from IPython.display import HTML

    pieces = []
    for token, keep in zip(tokens, kept, strict=True):
        text = html.escape(token).replace("\n", "&crarr;<br>")
        pieces.append(f'<span style="{KEPT_STYLE if keep else DROPPED_STYLE}">{text}</span>')
    legend = (
        f'<p><span style="{KEPT_STYLE}">learnt</span> &nbsp; '
        f'<span style="{DROPPED_STYLE}">read, not learnt</span></p>'
    )
    return HTML(
        f'<div style="font-family:monospace;white-space:pre-wrap;line-height:1.7">'
        f"{''.join(pieces)}{legend}</div>"
    )


def side_by_side(rows: Sequence[Mapping[str, Any]]) -> HTML:
    """A table of texts, one column per key, escaped and with line breaks kept."""
    from IPython.display import HTML

    keys = list(rows[0])
    cell = 'style="text-align:left;vertical-align:top;white-space:pre-wrap;max-width:26em"'

    def line(tag: str, values: Sequence[Any]) -> str:
        cells = (f"<{tag} {cell}>{html.escape(str(v))}</{tag}>" for v in values)
        return f"<tr>{''.join(cells)}</tr>"

    body = "".join(line("td", [row[k] for k in keys]) for row in rows)
    return HTML(f"<table><thead>{line('th', keys)}</thead><tbody>{body}</tbody></table>")
