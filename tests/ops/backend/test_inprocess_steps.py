"""Which graphs run in process for the outputs that are wanted."""

from __future__ import annotations

import pytest

from landseer.ensemble.inference.contracts import ensembles
from landseer.ops.backend.inprocess import needed_steps
from landseer.ops.evaluate.arrays import OUTPUTS, outputs


def needed(*names, detector="attention"):
    steps = ensembles(detector)["describe_full"].steps
    return {step.graph: set(step.outputs) for step in needed_steps(frozenset(names), steps)}


def test_only_what_leads_to_the_wanted_outputs_runs():
    assert needed("descriptor") == {"backbone": {"descriptor"}}
    assert needed("clusters", "query_vector") == {
        "backbone": {"query_vector", "local_features", "local_count", "local_norms"},
        "cluster": {"clusters"},
    }
    assert needed("boxes") == {"backbone": {"attention", "image_size"}, "detector": {"boxes"}}
    # A detector of pictures needs no backbone.
    assert needed("boxes", detector="rpn") == {"detector": {"boxes"}}


def test_an_output_that_no_graph_has_is_refused():
    with pytest.raises(ValueError, match=r"got outputs \['mood'\]; expected some of those of `describe_full`"):
        needed("mood")


def test_every_array_of_an_evaluation_can_be_computed():
    assert needed(*outputs(list(OUTPUTS))).keys() == {"backbone", "detector", "cluster"}
    assert outputs(["clusters", "local_features"]) == ("clusters", "cluster_count", "local_features", "local_count")
