"""The figures: nothing warns, all is labelled, colours can be told apart, text is escaped."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterator
from typing import Any

import matplotlib
import pytest

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb

from course_utils import plotting


@pytest.fixture(autouse=True)
def no_warning_and_no_figure_left() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    plt.close("all")


def legend(ax: Any) -> list[str]:
    box = ax.get_legend()
    assert box is not None
    return [text.get_text() for text in box.get_texts()]


def drawn(ax: Axes) -> Any:
    ax.figure.canvas.draw()  # layout warnings come only now
    return ax


def history(values: list[float]) -> list[dict[str, float]]:
    return [{"step": i, "loss": v} for i, v in enumerate(values)]


def test_a_learning_curve_has_a_raw_and_a_smooth_line_for_each_run() -> None:
    runs = {"full": history([3.0, 2.0, 1.0]), "LoRA": history([3.0, 2.5, 2.0])}
    ax = drawn(
        plotting.learning_curve(runs, title="Loss", ylabel="loss (nats)", floor=("ln 2", 0.69))
    )
    assert (ax.get_title("left"), ax.get_xlabel(), ax.get_ylabel()) == (
        "Loss",
        "optimiser step",
        "loss (nats)",
    )
    assert legend(ax) == ["full", "LoRA", "ln 2"]
    raw, smooth, *_, floor = ax.get_lines()
    assert list(raw.get_ydata()) == [3.0, 2.0, 1.0] and raw.get_alpha() < 0.5
    # 3; (0.16*3 + 0.2*2) / 0.36 = 0.88/0.36; (0.128*3 + 0.16*2 + 0.2*1) / 0.488 = 0.904/0.488
    assert list(smooth.get_ydata()) == pytest.approx([3.0, 0.88 / 0.36, 0.904 / 0.488])
    assert floor.get_linestyle() == "--" and list(floor.get_ydata()) == [0.69, 0.69]


def test_no_run_is_left_out_when_the_colours_run_out() -> None:
    runs = {f"run {i}": history([1.0, float(i)]) for i in range(9)}
    ax = drawn(plotting.learning_curve(runs, title="t", ylabel="y"))
    assert legend(ax) == list(runs)
    assert len(ax.get_lines()) == 18


def test_smoothing_keeps_a_constant_and_nothing() -> None:
    assert plotting.smooth([2.0] * 5) == pytest.approx([2.0] * 5)
    assert plotting.smooth([]) == []
    assert plotting.smooth([1.0, 5.0], weight=0.0) == [1.0, 5.0]


def test_bars_carry_their_number_and_interval() -> None:
    ax = drawn(
        plotting.bars(
            {"base": -0.5, "SFT": 1.25},
            {"base": (-0.75, -0.25), "SFT": (1.0, 1.5)},
            title="Gold",
            ylabel="gold score",
        )
    )
    assert [t.get_text() for t in ax.get_xticklabels()] == ["base", "SFT"]
    assert [p.get_height() for p in ax.patches] == [-0.5, 1.25]
    assert [t.get_text() for t in ax.texts] == ["-0.50", "1.25"]
    ends = [tuple(s[:, 1]) for c in ax.collections for s in c.get_segments()]
    assert ends == [(-0.75, -0.25), (1.0, 1.5)]
    assert (ax.get_title("left"), ax.get_ylabel()) == ("Gold", "gold score")
    assert [to_hex(p.get_facecolor()).upper() for p in ax.patches] == ["#999999", "#0072B2"]


def test_percent_bars_and_limits() -> None:
    ax = drawn(
        plotting.bars(
            {"base": 0.0, "SFT": 0.925},
            # an interval that does not hold its own value must not break the picture
            {"base": (0.01, 0.04), "SFT": (0.88, 0.96)},
            title="Format",
            ylabel="share",
            limits=(0, 1),
            percent=True,
        )
    )
    assert [t.get_text() for t in ax.texts] == ["0%", "92%"]
    assert ax.get_ylim() == (0, 1)
    assert "100%" in [t.get_text() for t in ax.get_yticklabels()]


def test_grouped_bars_do_not_overlap_and_are_named() -> None:
    keys = ["explain", "attribute", "compare", "haiku", "translate", "closed_qa", "person"]
    groups = {name: {k: float(i) for i, k in enumerate(keys)} for name in ("base", "SFT", "LoRA")}
    ax = drawn(plotting.grouped_bars(groups, title="By task", ylabel="gold score"))
    assert legend(ax) == ["base", "SFT", "LoRA"]
    assert [t.get_text() for t in ax.get_xticklabels()] == keys
    spans = sorted((p.get_x(), p.get_x() + p.get_width()) for p in ax.patches)
    assert len(spans) == 21
    assert all(b[0] >= a[1] - 1e-9 for a, b in itertools.pairwise(spans))
    # a cluster stands around its tick
    first = [p.get_x() + p.get_width() / 2 for c in ax.containers for p in c[:1]]
    assert sum(first) / 3 == pytest.approx(0)


@pytest.mark.parametrize(
    "names",
    [
        ("careless", "SFT"),  # the first free colour is SFT's own
        ("DPO beta 0.1", "DPO beta 0.5"),  # one policy twice
        ("base", "other", "more", "SFT", "PPO", "DPO", "gold"),
    ],
)
def test_no_two_groups_share_a_colour(names: tuple[str, ...]) -> None:
    ax = plotting.grouped_bars({n: {"a": 1.0, "b": 2.0} for n in names}, title="t", ylabel="y")
    colours = [to_hex(container[0].get_facecolor()) for container in ax.containers]
    assert len(set(colours)) == len(names)


def lab(colour: str) -> tuple[float, float, float]:
    """CIELAB (D65) of an sRGB colour: the standard formulas."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return _lab_of(linear)


def _lab_of(linear: list[float]) -> tuple[float, float, float]:
    matrix = (
        (0.4124, 0.3576, 0.1805, 0.95047),
        (0.2126, 0.7152, 0.0722, 1.0),
        (0.0193, 0.1192, 0.9505, 1.08883),
    )
    f = []
    for *row, white in matrix:
        t = max(0.0, sum(a * b for a, b in zip(row, linear, strict=True))) / white
        f.append(t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116)
    return 116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])


def deuteranope(colour: str) -> tuple[float, float, float]:
    """CIELAB as seen with no green cones: matrix of Machado, Oliveira and Fernandes (2009)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    matrix = (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    )
    return _lab_of([sum(a * b for a, b in zip(row, linear, strict=True)) for row in matrix])


def test_the_colours_can_be_told_apart_also_without_green_cones() -> None:
    # A bad pair is found: green and orange, far apart for most eyes, the same for some.
    assert math.dist(lab("#00aa00"), lab("#b56a00")) > 80
    assert math.dist(deuteranope("#00aa00"), deuteranope("#b56a00")) < 10
    assert len(set(plotting.CYCLE)) == len(plotting.CYCLE)
    for a, b in itertools.combinations(plotting.COLOURS.values(), 2):
        assert math.dist(lab(a), lab(b)) > 20, (a, b)
    # The seventh, the grey of the base model, is close to pink and green for them (7 and 12).
    for a, b in itertools.combinations(plotting.CYCLE[:6], 2):
        assert math.dist(deuteranope(a), deuteranope(b)) > 15, (a, b)


def test_a_calibration_curve_stands_beside_the_diagonal_with_its_intervals() -> None:
    bins = ([0.6, 0.9], [0.5, 1.0], np.array([10, 20]))
    ax = drawn(plotting.calibration_curve({"reward": bins}, title="How sure, how right"))
    assert legend(ax) == ["calibrated", "reward"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("what the model claims", "what came true")
    diagonal, points = ax.get_lines()[:2]
    assert list(diagonal.get_xdata()) == list(diagonal.get_ydata()) == [0.5, 1]
    assert list(points.get_xdata()) == [0.6, 0.9] and list(points.get_ydata()) == [0.5, 1.0]
    # Wilson's 95% intervals of 5 of 10 and of 20 of 20, from the formula by hand
    (whiskers,) = ax.collections
    ends = [[y for _, y in line] for line in whiskers.get_segments()]
    assert ends[0] == pytest.approx([0.2366, 0.7634], abs=1e-4)
    assert ends[1] == pytest.approx([0.8389, 1.0], abs=1e-4)


def test_masked_tokens_show_what_is_learnt_and_escape_the_text() -> None:
    page = plotting.masked_tokens(["<b>", "a & b", "x\ny"], [False, True, True]).data
    assert "<b>" not in page and "&lt;b&gt;" in page and "a &amp; b" in page
    assert f'<span style="{plotting.DROPPED_STYLE}">&lt;b&gt;</span>' in page
    assert f'<span style="{plotting.KEPT_STYLE}">a &amp; b</span>' in page
    assert "x&crarr;<br>y" in page
    assert page.count(plotting.KEPT_STYLE) == 3  # two tokens and the legend
    with pytest.raises(ValueError):
        plotting.masked_tokens(["a", "b"], [True])


def test_side_by_side_escapes_headings_and_cells() -> None:
    page = plotting.side_by_side(
        [{"<i>prompt": '<script>alert("1")</script>', "base": 1}, {"<i>prompt": "a\nb", "base": 2}]
    ).data
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert "<i>" not in page and "&lt;i&gt;prompt" in page
    assert page.count("<tr>") == 3 and page.count("<td ") == 4 and page.count("<th ") == 2
    assert "a\nb" in page and "pre-wrap" in page
