from __future__ import annotations

import sys
from pathlib import Path

import pytest

from landseer.ensemble.cores import cores
from landseer.ops.backend.model_settings import THREADS_VARIABLE, from_triton

OPENVINO = {"execution_accelerators": {"cpu_execution_accelerator": [{"name": "openvino", "parameters": {}}]}}


def settings(**config):
    parameters = {name: {"string_value": value} for name, value in config.pop("parameters", {}).items()}
    return from_triton({**config, "parameters": parameters}, repository=Path("/models/net"), version="3")


def test_a_bare_configuration(monkeypatch):
    monkeypatch.delenv(THREADS_VARIABLE, raising=False)
    bare = settings()
    assert bare.path == Path("/models/net/3/model.onnx")
    assert (bare.engine, bare.precision, bare.batching, bare.bounds) == ("onnxruntime", "fp32", False, {})
    assert bare.threads == cores()


def test_everything_said():
    full = settings(
        max_batch_size=8,
        default_model_filename="other.onnx",
        input=[{"name": "image"}],
        output=[{"name": "a"}, {"name": "b"}],
        optimization=OPENVINO,
        parameters={
            "intra_op_thread_count": "3",
            "landseer_precision": "bf16",
            "landseer_bounds": '{"image": [[64, 1600], [3, 3]]}',
            "landseer_prepared_outputs": '[["a"]]',
        },
    )
    assert full.path.name == "other.onnx"
    assert (full.engine, full.precision, full.threads, full.batching) == ("openvino", "bf16", 3, True)
    assert (full.inputs, full.outputs, full.prepared) == (("image",), ("a", "b"), (frozenset("a"),))
    assert full.bounds == {"image": ((64, 1600), (3, 3))}


def test_threads_of_the_launcher_give_way_to_those_of_the_model(monkeypatch):
    monkeypatch.setenv(THREADS_VARIABLE, "5")
    assert settings().threads == 5
    assert settings(parameters={"intra_op_thread_count": "2"}).threads == 2


@pytest.mark.parametrize(
    ("tensors", "bounds", "most"),
    [
        ([{"name": "image", "dims": ["-1", "-1", "3"]}], '{"image": [[64, 1600], [64, 1600], [3, 3]]}', 2),
        ([{"name": "features", "dims": ["500", "1280"]}, {"name": "count", "dims": ["1"]}], "{}", 2),
        ([{"name": "neighbours", "dims": ["-1", "1280"]}], '{"neighbours": [[1, 64], [1280, 1280]]}', sys.maxsize),
        ([{"name": "query", "dims": ["1280"]}], "{}", sys.maxsize),
    ],
    ids=["pictures", "local features", "neighbours", "a descriptor"],
)
def test_large_rows_share_an_inference_only_where_there_are_threads_for_them(tensors, bounds, most):
    """What a batch takes is not given back: 215 MB for the local features of eight pictures instead of one."""
    parameters = {"intra_op_thread_count": "4", "landseer_bounds": bounds}
    assert settings(max_batch_size=8, input=tensors, parameters=parameters).most == most


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"landseer_precision": "int4"}, "landseer_precision is 'int4'; expected bf16 or fp32"),
        ({"landseer_bounds": "[["}, "landseer_bounds is not JSON"),
        ({"landseer_bounds": '{"image": 3}'}, "landseer_bounds is .*expected"),
        ({"intra_op_thread_count": "many"}, "intra_op_thread_count is 'many'"),
    ],
)
def test_what_cannot_be_read_is_named(parameters, message):
    with pytest.raises(ValueError, match=message):
        settings(parameters=parameters)


def test_an_unknown_accelerator_is_refused():
    accelerators = {"execution_accelerators": {"cpu_execution_accelerator": [{"name": "abacus"}]}}
    with pytest.raises(ValueError, match="'abacus' is unknown; expected openvino"):
        settings(optimization=accelerators)


def test_warm_up_is_read_as_triton_writes_it():
    image = {"data_type": "TYPE_UINT8", "dims": ["480", "640", "3"], "random_data": True}
    words = {"data_type": "TYPE_STRING", "dims": ["1"], "zero_data": True}
    samples = [
        {"name": "one", "batch_size": 1, "inputs": {"image": image}},
        {"name": "four", "batch_size": 4, "inputs": {"image": image}},
        {"name": "words", "batch_size": 1, "inputs": {"words": words}},
    ]
    assert settings(max_batch_size=8, model_warmup=samples).warm_up == (
        {"image": ("uint8", (1, 480, 640, 3))},
        {"image": ("uint8", (4, 480, 640, 3))},
    )
    assert settings(model_warmup=samples[:1]).warm_up == ({"image": ("uint8", (480, 640, 3))},)
    assert settings().warm_up == ()
