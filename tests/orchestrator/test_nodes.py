"""What `doctor --cluster` finds: nodes that differ, each named with what it sees."""

from dataclasses import replace

import pytest

from orchestrator.nodes import NodeReport, compare

OWN = NodeReport(
    host="driver", versions={"python": "3.11.9", "torch": "2.13.0"},
    fingerprints={"acdc": "aa"}, store="", tracking="", devices="no GPU", free_gib=500.0,
)  # fmt: skip


def wrong(**changes):
    """What is said of a second node that differs so from the driver's machine."""
    found = compare(OWN, {"one": OWN, "two": replace(OWN, **changes)})
    return {finding.what: finding.text for finding in found if not finding.is_ok}


def test_nodes_that_agree_are_fine():
    found = list(compare(OWN, {"one": OWN, "two": OWN}))
    assert all(finding.is_ok for finding in found)
    assert [finding.what for finding in found] == [
        "versions", "clock", "data acdc", "store", "tracking", "disk", "devices",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "what", "text"),
    [
        (
            {"versions": {"python": "3.11.9", "torch": "2.12.1"}}, "versions",
            "two: torch 2.12.1 where this machine has 2.13.0",
        ),
        ({"versions": {"python": "3.11.9"}}, "versions", "two: torch missing where"),
        ({"clock_s": -61.0, "clock_error_s": 0.1}, "clock", "two: -61 s from this machine"),
        ({"fingerprints": {"acdc": "bb"}}, "data acdc", "two: bb where this machine has aa"),
        ({"fingerprints": {}}, "data acdc", "two: not looked at"),
        ({"store": "the note is not there"}, "store", "two: the note is not there; give `store`"),
        ({"tracking": "no server"}, "tracking", "two: no server; the driver alone"),
        ({"free_gib": 1.0}, "disk", "two: 1.0 GiB free"),
    ],
)  # fmt: skip
def test_a_node_that_differs_is_named_with_what_it_sees(changes, what, text):
    found = wrong(**changes)
    assert list(found) == [what]
    assert found[what].startswith(text)


def test_a_slow_answer_is_no_wrong_clock():
    assert wrong(clock_s=20.0, clock_error_s=30.0) == {}


def test_a_store_whose_notes_the_driver_does_not_see_is_another():
    found = {one.what: one for one in compare(OWN, {"one": OWN}, unseen=["one"])}
    assert not found["store"].is_ok
    assert found["store"].text.startswith("one: this machine does not see its note")
