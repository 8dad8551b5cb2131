"""Figures of the report as SVG text, of data as PNG. The only file that imports matplotlib."""

import io
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import StrMethodFormatter

from results.escaping import visible

mpl.use("Agg")

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#666666", "#000000")
_OPERATION_COLOURS = {
    "none": "#999999",
    "max_pool_3x3": "#56B4E9",
    "avg_pool_3x3": "#0072B2",
    "skip_connect": "#E69F00",
    "sep_conv_3x3": "#009E73",
    "sep_conv_5x5": "#00573F",
    "dil_conv_3x3": "#CC79A7",
    "dil_conv_5x5": "#882255",
}
_MOST_LETTERS = 40
_MOST_TITLE = 140
_STYLE = {
    "svg.hashsalt": "iac",
    "text.parse_math": False,  # names may hold a dollar sign
    "font.size": 9,
    "font.family": "DejaVu Sans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "figure.facecolor": "white",
}


@contextmanager
def _figure(width: float, height: float) -> Iterator[tuple[Figure, list[str]]]:
    """A figure whose SVG stands in the list afterwards; the same data give the same bytes."""
    out: list[str] = []
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, out
        out.append(_svg(figure))


def _svg(figure: Figure, **options: Any) -> str:  # noqa: ANN401 - matplotlib's own
    buffer = io.StringIO()
    with warnings.catch_warnings():  # letters that the font lacks are drawn as boxes
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        warnings.filterwarnings("ignore", "constrained_layout not applied")
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, **options)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def svg_drawn_by(draw: Callable[[], Any], width: float = 0.0) -> str:
    """Return the SVG of a figure that another library draws; matplotlib stays as it was.

    Args:
        draw: Draws by pyplot and returns its axes, one or an array of them.
        width: Of the figure in inches, at least.
    """
    with mpl.rc_context(_STYLE):
        figure = np.ravel(draw())[0].figure
        before, height = figure.get_size_inches()
        figure.set_size_inches(max(before, width), height)
        text = _svg(figure, bbox_inches="tight")
        plt.close(figure)
    return text


def jsd_trajectories(trajectories: pd.DataFrame, events: pd.DataFrame) -> str:
    """Draw the divergence of every edge over the epochs, one panel per search that has one.

    Dots mark the epochs at which an edge lost operations; the dashed line is the threshold of a
    rule that has one for all edges.
    """
    searches = [
        (key, part)
        for key, part in trajectories.groupby("search_key", sort=True)
        if part["jsd"].notna().any()
    ][:4]
    if not searches:
        return ""
    with _figure(4.2 * min(2, len(searches)), 2.8 * -(-len(searches) // 2)) as (figure, out):
        axes = figure.subplots(-(-len(searches) // 2), min(2, len(searches)), squeeze=False)
        for axis, (key, part) in zip(axes.flat, searches, strict=False):
            _draw_jsd(axis, part, events[events["search_key"] == key])
        for axis in list(axes.flat)[len(searches) :]:
            axis.set_visible(False)
    return out[0]


def importance_trajectories(trajectories: pd.DataFrame) -> str:
    """Draw the importance of every operation over the epochs, a panel for each edge."""
    part = trajectories[trajectories["level"] == 0]
    edges = part[["edge", "source", "target"]].drop_duplicates().sort_values("edge")
    n_columns = 5
    n_rows = -(-len(edges) // n_columns)
    with _figure(10, 1.7 * n_rows + 0.6) as (figure, out):
        axes = figure.subplots(n_rows, n_columns, squeeze=False, sharex=True, sharey=True)
        for axis, (_, edge) in zip(axes.flat, edges.iterrows(), strict=False):
            own = part[part["edge"] == edge["edge"]]
            for operation, line in own.groupby("operation", sort=False):
                shown = line[line["active"]].sort_values("epoch")
                colour = _OPERATION_COLOURS.get(str(operation), "#444444")
                axis.plot(
                    shown["epoch"], shown["importance"], color=colour, lw=1.2, label=str(operation)
                )
            axis.set_title(f"{_state(int(edge['source']))} → {_state(int(edge['target']))}")
            axis.set_ylim(0, 1)
        for axis in list(axes.flat)[len(edges) :]:
            axis.set_visible(False)
        figure.supxlabel("epoch")
        figure.supylabel("importance")
        handles, labels = axes.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False)
    return out[0]


def dice_against_seconds(jobs: pd.DataFrame, column: str = "test_dice") -> str:
    """Draw Dice against seconds of search, a point per job.

    Args:
        jobs: Rows of the table of that name.
        column: ``test_dice`` or ``val_dice``.
    """
    searched = jobs[jobs["search_s"].notna() & jobs[column].notna()]
    if len(searched) == 0:
        return ""
    with _figure(6.4, 3.6) as (figure, out):
        axis = figure.subplots()
        rows = searched.groupby(["dataset", "backbone"], sort=True)
        markers = "osD^vP"
        pruners = sorted(searched["pruner"].unique())
        for (names, part), marker in zip(rows, markers * 9, strict=False):
            for pruner in pruners:
                own = part[part["pruner"] == pruner]
                if len(own):
                    axis.scatter(
                        own["search_s"].astype(float),
                        own[column].astype(float),
                        marker=marker,
                        color=_COLOURS[pruners.index(pruner) % len(_COLOURS)],
                        label=_joined([*names, pruner]),
                        s=34,
                    )
        seconds = searched["search_s"].astype(float)
        if seconds.max() > 3 * seconds.min():
            axis.set_xscale("log")
        axis.set_xlabel("seconds of search")
        axis.set_ylabel("test Dice" if column == "test_dice" else "validation Dice")
        axis.grid(alpha=0.3)
        figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    return out[0]


def leading_operations(curves: pd.DataFrame) -> str:
    """Draw the share of final operations that lead their edge over the epochs.

    A panel for each dataset and backbone, a line for each arm, its share by chance dashed.

    Args:
        curves: As `results.early_decision.early_decision_curves` returns them.
    """
    panels = list(curves.groupby(["dataset", "backbone"], sort=True))
    if not panels:
        return ""
    pruners = sorted(curves["pruner"].unique())
    colours = dict(zip(pruners, _COLOURS * len(pruners), strict=False))
    n_columns = min(2, len(panels))
    n_rows = -(-len(panels) // n_columns)
    with _figure(4.6 * n_columns, 2.6 * n_rows + 0.5) as (figure, out):
        axes = figure.subplots(n_rows, n_columns, squeeze=False, sharex=True, sharey=True)
        for axis, (names, part) in zip(axes.flat, panels, strict=False):
            for pruner, line in part.groupby("pruner", sort=True):
                colour, shown = colours[str(pruner)], line.sort_values("epoch")
                axis.plot(shown["epoch"] + 1, 100 * shown["chance"], color=colour, lw=1, ls="--")
                axis.plot(shown["epoch"] + 1, 100 * shown["share"], color=colour, lw=1.6)
            axis.set_title(_joined(names))
            axis.set_xscale("log")
            axis.xaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
            axis.tick_params(labelbottom=True)  # a panel below may be missing
            axis.set_ylim(0, 102)
            axis.grid(alpha=0.3)
        for axis in list(axes.flat)[len(panels) :]:
            axis.set_visible(False)
        figure.supxlabel("epochs of search", fontsize=9)
        figure.supylabel("final operations in the top 3 (%)", fontsize=9)
        handles = [
            Line2D([], [], color=colours[pruner], label=_joined([pruner])) for pruner in pruners
        ]
        handles.append(Line2D([], [], color="#666666", lw=1, ls="--", label="by chance"))
        figure.legend(handles=handles, loc="outside upper center", ncols=4, frameon=False)
    return out[0]


def cell_drawing(genotype: str, title: str) -> str:
    """Draw a found cell: inputs on the left, nodes in the order they are computed, output right.

    Args:
        genotype: JSON of the cells; the first level is drawn.
        title: Which search found it.
    """
    raw: Mapping[str, object] = json.loads(genotype)
    n_nodes = int(str(raw["n_nodes"]))
    edges: list[tuple[int, int, str]] = [tuple(edge) for edge in raw["levels"][0]]  # type: ignore[index]
    places = {0: (0.0, 1.0), 1: (0.0, -1.0)}
    places |= {2 + i: (1.6 + 1.9 * i, 0.85 * (1 if i % 2 == 0 else -1)) for i in range(n_nodes)}
    last = 1.6 + 1.9 * n_nodes
    with _figure(9, 3.2) as (figure, out):
        axis = figure.subplots()
        axis.set_title(visible(title)[:_MOST_TITLE], loc="left")
        for source, target, operation in edges:
            _draw_edge(axis, places[source], places[target], operation, source, target)
        for node in range(2, 2 + n_nodes):
            axis.plot(
                [places[node][0], last],
                [places[node][1], 0],
                color="#bbbbbb",
                lw=1,
                ls=":",
                zorder=0,
            )
        for state, (x, y) in [*places.items(), (2 + n_nodes, (last, 0.0))]:
            label = "concat" if state == 2 + n_nodes else _state(state)
            axis.text(
                x,
                y,
                label,
                ha="center",
                va="center",
                bbox={"boxstyle": "round,pad=0.45", "fc": "#eef3f8", "ec": "#33506b"},
                zorder=3,
            )
        axis.set_xlim(-0.7, last + 0.7)
        axis.set_ylim(-2.1, 2.1)
        axis.axis("off")
    return out[0]


def _draw_edge(
    axis: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    operation: str,
    source: int,
    target: int,
) -> None:
    colour = _OPERATION_COLOURS.get(operation, "#444444")
    length = end[0] - start[0]
    bend = 0.12 + 0.05 * (target - source)
    sign = 1 if end[1] >= start[1] else -1
    axis.annotate(
        "",
        xy=end,
        xytext=start,
        arrowprops={
            "arrowstyle": "-|>",
            "color": colour,
            "lw": 1.8,
            "shrinkA": 16,
            "shrinkB": 16,
            "connectionstyle": f"arc3,rad={-sign * bend:.2f}",
        },
        zorder=1,
    )
    share = 0.36 if source < 2 else 0.5
    middle = (start[0] + share * length, start[1] + share * (end[1] - start[1]))
    offset = sign * bend * length * 2 * share * (1 - share)
    axis.text(
        middle[0],
        middle[1] + offset,
        operation,
        color=colour,
        fontsize=7.5,
        ha="center",
        va="center",
        bbox={"fc": "white", "ec": "none", "pad": 0.6, "alpha": 0.9},
        zorder=2,
    )


def _draw_jsd(axis: Axes, part: pd.DataFrame, events: pd.DataFrame) -> None:
    first = part.iloc[0]
    for edge, line in part.groupby(["level", "edge"], sort=True):
        shown = line.drop_duplicates("epoch").sort_values("epoch")
        values = shown["jsd"].astype(float)
        axis.plot(shown["epoch"], values, lw=0.9, alpha=0.8)
        pruned = events[(events["level"] == edge[0]) & (events["edge"] == edge[1])]
        dots = shown[shown["epoch"].isin(pruned["epoch"])]
        axis.scatter(dots["epoch"], dots["jsd"].astype(float), s=12, color="black", zorder=3)
    thresholds = events.loc[
        events["rule"].isin(["js_absolute", "js_stability"]), "threshold"
    ].dropna()
    if len(thresholds):
        axis.axhline(float(thresholds.iloc[0]), color="black", ls="--", lw=1)
    if (part["jsd"].fillna(0) > 0).any():
        axis.set_yscale("log")
        axis.set_ylim(bottom=1e-6)  # an edge with one operation left has none
    axis.set_xlabel("epoch")
    axis.set_ylabel("JSD (bits)")
    names = [first[name] for name in ("dataset", "backbone", "pruner")]
    axis.set_title(_joined([*names, f"seed {first['seed']}"]))


def _joined(names: Sequence[object]) -> str:
    """Names as a label, each cut where it would leave no room for what is drawn."""
    parts = [visible(name) for name in names]
    return " · ".join(
        part if len(part) <= _MOST_LETTERS else f"{part[: _MOST_LETTERS - 1]}…" for part in parts
    )


def _state(index: int) -> str:
    return {0: "skip", 1: "second"}.get(index, f"node {index - 1}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SlicePanel:
    """A slice with its labels.

    Attributes:
        title: Its name.
        image: Intensities, rows and columns.
        labels: Label values, of the same shape.
        aspect: Height of a pixel over its width, as drawn: rows run across, columns up.
    """

    title: str
    image: np.ndarray
    labels: np.ndarray
    aspect: float


def label_colours(values: Sequence[int]) -> dict[int, str]:
    """Return a colour for each label value; they repeat after eight."""
    palette = (
        "#E69F00",
        "#56B4E9",
        "#CC79A7",
        "#F0E442",
        "#009E73",
        "#D55E00",
        "#FFFFFF",
        "#0072B2",
    )
    return {value: palette[index % len(palette)] for index, value in enumerate(values)}


def slice_panels(panels: Sequence[SlicePanel], values: Sequence[int]) -> bytes:
    """Draw slices side by side in grey, with the contours of their labels; PNG.

    Args:
        panels: The slices.
        values: Every label value but the background.
    """
    colours = label_colours(values)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(2.6 * len(panels), 2.9), layout="constrained", facecolor="black")
        for axes, panel in zip(
            np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True
        ):
            axes.imshow(panel.image.T, cmap="gray", origin="lower", aspect=panel.aspect)
            for value in values:
                mask = np.isin(panel.labels.T, [value])
                if mask.any():
                    axes.contour(mask, levels=[0.5], colors=[colours[value]], linewidths=1.2)
            axes.set_title(panel.title, color="white")
            axes.invert_xaxis()
            axes.set_axis_off()
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=80, metadata={"Software": None})
    return buffer.getvalue()
