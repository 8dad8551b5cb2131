"""What the figures of the report show, read off the SVG."""

import re

import pandas as pd

from results.figures import jsd_trajectories


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
