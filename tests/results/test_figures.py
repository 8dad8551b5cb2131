"""What the figures of the report show, read off the SVG."""

import re

import pandas as pd

from results.figures import jsd_trajectories, leading_operations


def search(epochs, divergence):
    return pd.DataFrame(
        {
            "search_key": "k", "dataset": "d", "backbone": "b", "pruner": "none", "seed": 0,
            "level": 0, "edge": 0, "epoch": epochs, "operation": "skip_connect",
            "jsd": divergence,
        }
    )  # fmt: skip


def removal(epoch):
    return pd.DataFrame(
        {
            "search_key": ["k"], "level": [0], "edge": [0], "epoch": [epoch],
            "rule": ["evidence"], "value": [5.2], "threshold": [4.6],
        }
    )  # fmt: skip


def heights(svg):
    """Vertical places of the curve's points and of the dots, in the picture's units."""
    curve = re.search(r'<g id="line2d_\d+">\s*<path d="(M[^"]*)"[^>]*clip-path', svg)
    points = [float(y) for y in re.findall(r"[ML] [\d.]+ ([\d.]+)", curve[1])]
    dots = re.findall(r'<g id="PathCollection_\d+">.*?</g>\s*</g>', svg, re.DOTALL)
    return points, [float(y) for part in dots for y in re.findall(r'<use [^>]*y="([\d.]+)"', part)]


def test_a_removal_is_marked_on_the_edges_own_line_whatever_the_rule_compared():
    svg = jsd_trajectories(search([0, 1, 2], [1e-2, 1e-3, 1e-4]), removal(1))
    points, dots = heights(svg)
    assert len(points) == 3
    assert len(dots) == 1
    assert abs(dots[0] - points[1]) < 0.5


def curve(pruner, n_epochs):
    return pd.DataFrame(
        {
            "dataset": "acdc", "backbone": "unet", "pruner": pruner, "epoch": range(n_epochs),
            "share": [0.1 * epoch for epoch in range(n_epochs)], "chance": 0.4,
        }
    )  # fmt: skip


def curves_of(svg):
    """``(colour, is dashed)`` → heights of the points of every curve in the panels."""
    found = re.findall(r'<path d="(M[^"]*)" clip-path="[^"]*" style="([^"]*)"', svg)
    return {
        (re.search(r"stroke: (#\w+)", style)[1], "dasharray" in style): [
            float(y) for y in re.findall(r"[ML] [\d.]+ ([\d.]+)", path)
        ]
        for path, style in found
        if "stroke-opacity" not in style  # the grid
    }


def test_leading_operations_have_a_line_for_each_arm_and_its_chance_dashed():
    found = curves_of(leading_operations(pd.concat([curve("none", 9), curve("fast", 6)])))
    assert len(found) == 4
    dashed = {colour: heights for (colour, is_dashed), heights in found.items() if is_dashed}
    solid = {colour: heights for (colour, is_dashed), heights in found.items() if not is_dashed}
    assert set(dashed) == set(solid)
    assert sorted(map(len, solid.values())) == sorted(map(len, dashed.values())) == [6, 9]
    for colour, heights in solid.items():
        assert heights == sorted(heights, reverse=True)  # down is positive
        assert set(dashed[colour]) == {heights[4]}  # both are 0.4


def test_without_searches_there_is_no_figure_of_leading_operations():
    assert leading_operations(curve("none", 0)) == ""
