"""The staircase: every score of a run in the order of its experiments, and how the best went down (or up).

Grey dots are discards, green dots keeps, the green line is the best so far, the dashed line the baseline.
Each keep is named in the column at the right, joined to its dot by a thin line; where there are more keeps
than lines, those that gained most are named and the rest are counted. The picture ends a little beyond the
baseline, so that one hopeless score does not flatten all others; what lies outside is marked at the edge and
counted. Crashes have no score: they are crosses at the foot, counted in the subtitle.

Matplotlib is imported inside `staircase`. It opens no window and ignores the user's backend and style; its
global settings are changed while it draws and put back, so draw in one thread at a time.
"""

from __future__ import annotations

import io
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from eventstore.projections.results import Row

WIDTH_PX, HEIGHT_PX, DPI = 1200, 700, 100
LABEL_MAX = 45
"""Characters of a description in the picture."""

LABEL_STEP_PX = 17
"""Least distance of two labels; 9.5 pt text is about 13 px high at 100 dots per inch."""

PLOT_BOX = (0.075, 0.095, 0.585, 0.775)
"""Left, bottom, width and height of the axes, as parts of the picture; the labels fill what is to the right."""

WORSE_SHARE = 0.6
"""How far the picture may go beyond the baseline, as a part of the way from the baseline to the best."""

INK, MUTED, FAINT, GRID = "#1f2933", "#616e7c", "#9aa5b1", "#e4e7eb"
GREEN, PALE_GREEN, RED = "#15803d", "#86c29a", "#c2410c"


def staircase(rows: Sequence[Row], metric: str, direction: str, tag: str) -> bytes:
    """
    Draw the rows of a run.

    Args:
        rows: As `Results.rows` gives them; the first is the baseline. May be empty.
        metric: The objective's name, the label of the y axis.
        direction: `minimize`, or `maximize` or `pass`, where higher is better.

    Returns:
        A PNG of 1200 x 700 pixels.
    """
    import matplotlib as mpl  # noqa: PLC0415 (0.3 s and 30 MB that only a picture needs)
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams["text.parse_math"] = False  # a description may hold dollar signs
        figure = Figure(figsize=(WIDTH_PX / DPI, HEIGHT_PX / DPI), dpi=DPI, facecolor="white")
        canvas = FigureCanvasAgg(figure)
        _draw(figure, sorted(rows, key=lambda row: row.experiment), metric, direction, tag)
        png = io.BytesIO()
        canvas.print_figure(png, format="png", dpi=DPI, facecolor="white")
    return png.getvalue()


def _draw(figure: Figure, rows: Sequence[Row], metric: str, direction: str, tag: str) -> None:
    plain = _printable()
    axes = figure.add_axes(PLOT_BOX)
    _dress(axes, plain(metric))
    scored = [(row, row.score) for row in rows if row.score is not None and row.status != "crash"]
    keeps = [(row, score) for row, score in scored if row.status == "keep"]
    axes.set_xlim(-0.6, max((row.experiment for row in rows), default=0) + 0.6)
    _crashes(axes, [row.experiment for row in rows if row.status == "crash"])
    if not keeps:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no score", transform=axes.transAxes, ha="center", color=MUTED, fontsize=13)
        _titles(figure, plain(f"{tag}: no score"), _counts(rows, 0))
        return
    minimize = direction == "minimize"
    baseline = keeps[0][1]
    best = (min if minimize else max)(score for _, score in keeps)
    low, high = _limits([score for _, score in scored], baseline, best, minimize)
    axes.set_ylim(low, high)
    outside = _discards(axes, [(row.experiment, score) for row, score in scored if row.status == "discard"])
    axes.axhline(baseline, color=FAINT, linewidth=1, linestyle=(0, (5, 4)), zorder=1)
    _steps(axes, keeps, rows[-1].experiment, min if minimize else max)
    unnamed = _labels(figure, axes, keeps[1:], plain)
    _titles(figure, plain(f"{tag}: {_headline(metric, baseline, best)}"), _counts(rows, outside, unnamed))
    _baseline_label(axes, baseline, minimize)


# ---------------------------------------------------------------- what is shown, as numbers and words


def _limits(scores: Sequence[float], baseline: float, best: float, minimize: bool) -> tuple[float, float]:
    """The y axis: the way from baseline to best, some of the worse side, and air at both ends."""
    way = abs(best - baseline) or _typical_distance(scores, baseline)
    worse = [score - baseline if minimize else baseline - score for score in scores]
    reach = max(distance for distance in worse if distance <= WORSE_SHARE * way)
    ends = (best, baseline + reach) if minimize else (baseline - reach, best)
    air = 0.07 * (ends[1] - ends[0]) or 0.5 * way
    return ends[0] - air, ends[1] + air


def _typical_distance(scores: Sequence[float], baseline: float) -> float:
    """For a run without a gain: the median distance of its other scores, so that half of them can be seen."""
    distances = sorted(abs(score - baseline) for score in scores if score != baseline)
    if distances:
        return 3 * distances[len(distances) // 2]
    return abs(baseline) * 0.01 or 1.0


def _headline(metric: str, baseline: float, best: float) -> str:
    if best == baseline:
        return f"{metric} {_number(baseline)}, no gain over the baseline"
    share = f" ({(best - baseline) / abs(baseline):+.2%})" if baseline else ""
    return f"{metric} {_number(baseline)} → {_number(best)}{share}"


def _counts(rows: Sequence[Row], outside: int, unnamed: int = 0) -> str:
    counted = [row for row in rows if row.experiment > 0]
    words = {"keep": "kept", "discard": "discarded", "crash": "crashed"}
    counts = [f"{sum(row.status == status for row in counted)} {word}" for status, word in words.items()]
    parts = [f"{len(counted)} experiments after the baseline: {', '.join(counts)}"]
    if outside:
        parts.append(f"{outside} beyond the edge (triangles)")
    if unnamed:
        parts.append(f"{unnamed} smaller gains not named")
    return " · ".join(parts)


def _number(value: float) -> str:
    return f"{value:.6f}" if abs(value) < 100 else f"{value:,.1f}"


def _shortened(words: str) -> str:
    return words if len(words) <= LABEL_MAX else words[: LABEL_MAX - 1].rstrip() + "…"


def _printable() -> Callable[[str], str]:
    """A function that replaces what the picture's font cannot draw, instead of a warning and an empty box each."""
    from matplotlib import font_manager  # noqa: PLC0415

    glyphs = font_manager.get_font(font_manager.findfont("DejaVu Sans")).get_charmap()
    return lambda text: "".join(char if ord(char) in glyphs else "?" for char in text)


# ---------------------------------------------------------------- drawing


def _dress(axes: Axes, metric: str) -> None:
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    axes.patch.set_visible(False)  # the lines from dots to labels run below it
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    axes.tick_params(colors=MUTED, labelsize=10, length=3)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10, min_n_ticks=1))
    axes.ticklabel_format(axis="y", style="plain", useOffset=False)
    axes.set_xlabel("experiment", color=MUTED, fontsize=11)
    axes.set_ylabel(metric, color=MUTED, fontsize=11)


def _titles(figure: Figure, headline: str, counts: str) -> None:
    left = PLOT_BOX[0]
    figure.text(left, 0.945, headline, color=INK, fontsize=16, fontweight="bold", va="center")
    figure.text(left, 0.9, counts, color=MUTED, fontsize=11, va="center")


def _crashes(axes: Axes, experiments: Sequence[int]) -> None:
    foot = axes.get_xaxis_transform()
    axes.plot(experiments, [0.012] * len(experiments), "x", color=RED, markersize=5, transform=foot, zorder=3)


def _discards(axes: Axes, points: Sequence[tuple[int, float]]) -> int:
    """Draw the discards, those beyond the axis as triangles at its edge. Returns how many those are."""
    low, high = axes.get_ylim()
    inside = [(x, y) for x, y in points if low <= y <= high]
    beyond = [(x, y) for x, y in points if not low <= y <= high]
    axes.plot(*_columns(inside), "o", color=FAINT, alpha=0.55, markersize=5, markeredgewidth=0, zorder=2)
    for marker, place, part in (
        ("^", 0.988, [x for x, y in beyond if y > high]),
        ("v", 0.012, [x for x, y in beyond if y < low]),
    ):
        edge = axes.get_xaxis_transform()
        axes.plot(part, [place] * len(part), marker, color=FAINT, alpha=0.8, markersize=5, transform=edge, zorder=2)
    return len(beyond)


def _steps(axes: Axes, keeps: Sequence[tuple[Row, float]], last: int, better: Callable[..., float]) -> None:
    """The best so far as a line of steps that runs on to the last experiment, and a dot for each keep."""
    xs = [row.experiment for row, _ in keeps]
    ys = list(accumulate((score for _, score in keeps), better))
    axes.step([*xs, last], [*ys, ys[-1]], where="post", color=GREEN, linewidth=1.8, zorder=4)
    dots = [score for _, score in keeps]
    axes.plot(xs, dots, "o", color=GREEN, markersize=7, markeredgecolor="white", markeredgewidth=1, zorder=5)


def _baseline_label(axes: Axes, baseline: float, minimize: bool) -> None:
    axes.annotate(
        f"baseline {_number(baseline)}",
        (1, baseline),
        xycoords=axes.get_yaxis_transform(),
        xytext=(-2, 5 if minimize else -5),
        textcoords="offset points",
        ha="right",
        va="bottom" if minimize else "top",
        color=MUTED,
        fontsize=10,
    )


def _labels(figure: Figure, axes: Axes, keeps: Sequence[tuple[Row, float]], plain: Callable[[str], str]) -> int:
    """Name the keeps beside the axes, as high as their dots where there is room. Returns how many are left out."""
    bottom_px, height_px = PLOT_BOX[1] * HEIGHT_PX, PLOT_BOX[3] * HEIGHT_PX
    room = int(height_px // LABEL_STEP_PX)
    named = sorted(sorted(keeps, key=lambda keep: -(keep[0].gain or 0.0))[:room], key=lambda keep: -keep[1])
    dots = [axes.transData.transform((row.experiment, score)) for row, score in named]
    heights = spread([float(y) for _, y in dots], LABEL_STEP_PX, bottom_px, bottom_px + height_px)
    edge_px = (PLOT_BOX[0] + PLOT_BOX[2]) * WIDTH_PX
    for (row, _), (x, y), height in zip(named, dots, heights, strict=True):
        _connect(figure, [(x, y), (edge_px + 6, height), (edge_px + 16, height)])
        y_share = height / HEIGHT_PX
        number_x, words_x = (edge_px + 48) / WIDTH_PX, (edge_px + 55) / WIDTH_PX
        figure.text(number_x, y_share, str(row.experiment), color=GREEN, fontsize=9.5, va="center", ha="right")
        figure.text(words_x, y_share, plain(_shortened(row.description)), color=INK, fontsize=9.5, va="center")
    return len(keeps) - len(named)


def _connect(figure: Figure, points_px: Sequence[tuple[float, float]]) -> None:
    from matplotlib.lines import Line2D  # noqa: PLC0415

    xs, ys = _columns([(x / WIDTH_PX, y / HEIGHT_PX) for x, y in points_px])
    figure.add_artist(Line2D(xs, ys, color=PALE_GREEN, linewidth=0.7, alpha=0.6, zorder=-1))


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def spread(wanted: Sequence[float], step: float, low: float, high: float) -> list[float]:
    """
    Move heights apart as little as possible.

    Args:
        wanted: Where each would like to be, from the highest down.
        step: The least distance of two neighbours; `len(wanted) * step` fits between *low* and *high*.

    Returns:
        Heights from the highest down, inside the limits, with the least sum of squared moves.
    """
    # With each height raised by its place, "a step below the one above" becomes "not above it": isotonic
    # regression, solved by pooling neighbours that violate the order.
    pools: list[tuple[float, int]] = []  # sum and count
    for place, height in enumerate(wanted):
        total, size = height + place * step, 1
        while pools and pools[-1][0] / pools[-1][1] < total / size:
            above, count = pools.pop()
            total, size = total + above, size + count
        pools.append((total, size))
    lowest, highest = low + (len(wanted) - 0.5) * step, high - step / 2
    raised = [min(max(total / size, lowest), highest) for total, size in pools for _ in range(size)]
    return [height - place * step for place, height in enumerate(raised)]
