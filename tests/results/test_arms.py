"""Arms are known by their type, whatever a sweep calls them."""

import pandas as pd

from results.aggregate import speedup
from results.arms import ArmTypes
from results.comparison_section import _usual_pairs


def jobs(**types):
    return pd.DataFrame({"pruner": list(types), "arm_type": list(types.values())})


def test_controls_come_before_the_full_search_and_the_others():
    plain = ArmTypes(pd.DataFrame({"pruner": ["b", "none", "a", "no_cell"]}))
    assert plain.in_order(["b", "none", "a", "no_cell"]) == ["no_cell", "none", "a", "b"]
    named = ArmTypes(jobs(b="js_stability", full="none", a="magnitude", bare="no_cell"))
    assert named.in_order(["a", "b", "full", "bare"]) == ["bare", "full", "a", "b"]


def test_an_alias_is_a_reference_and_many_of_one_type_are_not():
    found = _usual_pairs(jobs(full="none", x="js_stability", drawn="random"))
    assert found == [("drawn", "full"), ("x", "full"), ("x", "drawn")]
    table = jobs(none="none", random_0="random", random_1="random")
    assert _usual_pairs(table) == [("random_0", "none"), ("random_1", "none")]
    table = jobs(none="none", random_0="random", random="random")
    assert ("random_0", "random") in _usual_pairs(table)


def test_a_speed_up_is_over_the_full_search_whatever_it_is_called():
    alone = {"search_exclusive": True, "search_other_load": 0.0, "search_n_micro_batches": 1}
    same = {"device": "d", "n_threads": 1, "torch_version": "t", "versions": "{}", "seed": 0}
    frame = pd.DataFrame(
        [
            {"pruner": "full", "arm_type": "none", "search_s": 30.0, **alone, **same},
            {"pruner": "x", "arm_type": "js_stability", "search_s": 10.0, **alone, **same},
        ]
    )
    assert speedup(frame, "x").ratio == 3.0
    nameless = frame.drop(columns="arm_type")
    assert speedup(nameless, "x").refusal == "no full search with seed 0"


def test_in_tables_of_older_versions_an_arm_is_called_by_its_type():
    types = ArmTypes(pd.DataFrame({"pruner": ["none", "x"], "arm_type": [None, None]}))
    assert types.is_full_search("none")
    assert not types.is_full_search("x")
