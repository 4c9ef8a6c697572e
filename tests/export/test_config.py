import dataclasses
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from landseer.ensemble.inference.contracts import Sizes, ensembles, graphs
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.pictures.pictures import target_size
from landseer.export.config import TYPES, WARM_UP, all_configs

GOLDEN = Path(__file__).parents[1] / "golden" / "configs"
PROFILE = Profile(backbone="efficientnet_lite0", weights_sha256="0" * 64, sizes=Sizes(channels=1280))
FILES = all_configs(PROFILE, {"lattqe": "bf16"})
CONFIGS = {path.split("/")[0]: text for path, text in FILES.items() if path.endswith("/config.pbtxt")}


def parsed(name: str) -> pb.ModelConfig:
    return text_format.Parse(CONFIGS[name], pb.ModelConfig())


@pytest.mark.parametrize("name", sorted(graphs(PROFILE.sizes)))
def test_a_parsed_config_declares_exactly_the_contracts_tensors(name: str) -> None:
    config, graph = parsed(name), graphs(PROFILE.sizes)[name]
    for found, declared in ((config.input, graph.inputs), (config.output, graph.outputs)):
        assert [(t.name, t.data_type, tuple(t.dims)) for t in found] == [
            (t.name, TYPES[t.dtype], t.dims) for t in declared
        ]
    assert config.max_batch_size == graph.max_batch
    assert config.dynamic_batching.default_queue_policy.max_queue_size > 0
    assert config.dynamic_batching.default_queue_policy.default_timeout_microseconds > 0


@pytest.mark.parametrize("name", sorted(ensembles()))
def test_ensemble_steps_use_only_tensors_that_exist(name: str) -> None:
    config, contracts = parsed(name), graphs(PROFILE.sizes)
    available = {t.name for t in config.input}
    for step in config.ensemble_scheduling.step:
        graph = contracts[step.model_name]
        assert set(step.input_map) == {t.name for t in graph.inputs}
        assert set(step.input_map.values()) <= available
        assert set(step.output_map) <= {t.name for t in graph.outputs}
        available |= set(step.output_map.values())
    assert {t.name for t in config.output} <= available
    assert Profile.from_json(config.parameters["landseer_profile"].string_value) == PROFILE


def test_describe_does_not_map_what_only_indexing_needs() -> None:
    step = parsed("describe").ensemble_scheduling.step[0]
    assert set(step.output_map) == {"descriptor", "query_vector"}


@pytest.mark.parametrize("name", sorted(graphs(PROFILE.sizes)))
def test_the_pip_variant_has_no_queue_policy_and_batches_mixed_shapes(name: str) -> None:
    pip = text_format.Parse(FILES[f"{name}/configs/pip.pbtxt"], pb.ModelConfig())
    assert pip.HasField("dynamic_batching")
    assert not pip.dynamic_batching.HasField("default_queue_policy")
    assert [tensor.allow_ragged_batch for tensor in pip.input] == [-1 in tensor.dims for tensor in pip.input]
    for tensor in pip.input:
        tensor.allow_ragged_batch = False
    pip.dynamic_batching.CopyFrom(parsed(name).dynamic_batching)
    assert pip == parsed(name)


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_configs_equal_the_golden_ones(name: str) -> None:
    """To accept a change: python tests/export/test_config.py."""
    assert CONFIGS[name] == (GOLDEN / f"{name}.pbtxt").read_text()


@pytest.mark.parametrize("long_side", [64, 320, 640, 1024])
def test_a_start_warms_up_on_pictures_as_they_are_sent(long_side: int) -> None:
    profile = dataclasses.replace(PROFILE, long_side=long_side)
    config = text_format.Parse(all_configs(profile, {})["backbone/config.pbtxt"], pb.ModelConfig())
    found = {tuple(one.inputs["image"].dims) for one in config.model_warmup}
    sent = {target_size(width, height, profile) for height, width in WARM_UP}
    assert found == {(height, width, 3) for width, height in sent}


def test_a_profile_survives_its_json_and_rejects_others() -> None:
    assert Profile.from_json(PROFILE.to_json()) == PROFILE
    for text in ("", "{}", "[]", '{"sizes": 3}'):
        with pytest.raises(ValueError, match="not a Landseer profile"):
            Profile.from_json(text)


if __name__ == "__main__":
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for name, text in CONFIGS.items():
        (GOLDEN / f"{name}.pbtxt").write_text(text)
