"""Every detector behind the one contract: what is served, from which weights, and that it is what was exported."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from rich.console import Console
from safetensors.torch import save_file
from tritonclient.grpc import model_config_pb2 as pb

from landseer.ensemble.inference.contracts import DETECTOR_INPUTS, Sizes, ensembles, graphs
from landseer.ensemble.inference.profile import Profile
from landseer.export import all as command
from landseer.export.build import UNTRAINED, Networks, Wanted, build
from landseer.export.config import WARM_UP, all_configs
from landseer.export.detectors import DETECTORS
from landseer.export.engines import ENGINES
from landseer.export.examples import cases, photos
from landseer.export.exporter import ExportError, ExportOptions, export
from landseer.export.manifest import Manifest, ManifestEntry, file_sha256
from landseer.export.models.landmark_detectors import ssdlite
from landseer.export.models.rpn import RegionProposals
from landseer.export.models.state_dicts import read_weights
from landseer.export.models.torch_file import WeightsError
from landseer.export.models.trunk import Trunk
from landseer.export.models.trunks import BACKBONES
from landseer.export.parity import boxes_iou, eager
from landseer.export.tensorrt.adapted import adapted
from landseer.export.tensorrt.support import gaps, plugins

SIZES = Sizes(channels=1280)
QUIET = Console(quiet=True)
OF_PICTURES = sorted(set(DETECTOR_INPUTS) - {"attention"})


def profile(detector: str) -> Profile:
    return Profile(backbone="x", weights_sha256="0" * 64, sizes=SIZES, detector=detector)


def parsed(detector: str, name: str, *, sizes: Sizes = SIZES) -> pb.ModelConfig:
    served = dataclasses.replace(profile(detector), sizes=sizes)
    return text_format.Parse(all_configs(served, {})[f"{name}/config.pbtxt"], pb.ModelConfig())


@pytest.fixture(scope="module")
def trunk() -> Trunk:
    return BACKBONES["efficientnet_lite0"].load(None, "auto").trunk


def test_what_can_be_exported_has_a_contract() -> None:
    assert set(DETECTORS) == set(DETECTOR_INPUTS)


@pytest.mark.parametrize("kind", sorted(DETECTOR_INPUTS))
def test_detectors_differ_in_their_inputs_alone(kind: str) -> None:
    contracts, usual = graphs(SIZES, kind), graphs(SIZES)
    assert contracts["detector"] == dataclasses.replace(usual["detector"], inputs=DETECTOR_INPUTS[kind])
    assert {**contracts, "detector": usual["detector"]} == usual
    assert ensembles(kind)["describe"] == ensembles()["describe"]
    assert ensembles(kind)["describe_full"].outputs == ensembles()["describe_full"].outputs


@pytest.mark.parametrize("kind", sorted(DETECTOR_INPUTS))
def test_every_step_of_an_ensemble_gets_what_its_graph_takes(kind: str) -> None:
    config, contracts = parsed(kind, "describe_full"), graphs(SIZES, kind)
    available = {tensor.name for tensor in config.input}
    for step in config.ensemble_scheduling.step:
        assert set(step.input_map) == {tensor.name for tensor in contracts[step.model_name].inputs}
        assert set(step.input_map.values()) <= available
        available |= set(step.output_map.values())
    assert {tensor.name for tensor in config.output} <= available
    assert Profile.from_json(config.parameters["landseer_profile"].string_value).detector == kind


@pytest.mark.parametrize("kind", OF_PICTURES)
def test_a_detector_of_pictures_is_bounded_and_warmed_up_as_the_backbone_is(kind: str) -> None:
    detector, backbone = parsed(kind, "detector"), parsed(kind, "backbone")
    assert [tensor.name for tensor in detector.input] == ["image"]
    for parameter in ("landseer_bounds", "landseer_precision"):
        assert detector.parameters[parameter] == backbone.parameters[parameter]
    assert len(detector.model_warmup) == len(WARM_UP)


def test_a_profile_from_before_there_were_other_detectors_is_of_the_default_one() -> None:
    fields = json.loads(profile("attention").to_json())
    del fields["detector"], fields["detector_sha256"]
    assert Profile.from_json(json.dumps(fields)) == profile("attention")
    trained = dataclasses.replace(profile("rpn"), detector_sha256="ab" * 32)
    assert Profile.from_json(trained.to_json()) == trained
    assert trained.fingerprint == profile("attention").fingerprint


@pytest.mark.parametrize("kind", OF_PICTURES)
def test_checks_are_of_few_photographs_a_batch_of_two_first(kind: str) -> None:
    batches = [case.inputs["image"].shape[0] for case in cases("detector", SIZES, {}, kind)]
    assert batches[0] == 2
    assert len(batches) <= 4


def test_weights_of_training_and_of_torchvision_are_read(tmp_path: Path, trunk: Trunk) -> None:
    network = ssdlite(None, seed=7, sizes=SIZES).network.state_dict()
    torch.save(network, tmp_path / "best.pth")
    save_file(network, tmp_path / "best.safetensors")
    for path in (tmp_path / "best.pth", tmp_path / "best.safetensors"):
        detector = DETECTORS["ssdlite"](trunk, path, SIZES)
        assert not detector.untrained
        loaded: Any = detector.module
        assert all(torch.equal(value, network[name]) for name, value in loaded.network.state_dict().items())


def test_proposals_are_read_as_training_names_them(tmp_path: Path, trunk: Trunk) -> None:
    rpn = {f"rpn.{name}": value for name, value in RegionProposals.untrained(1280, seed=7).state_dict().items()}
    save_file(rpn, tmp_path / "best.safetensors")
    detector = DETECTORS["rpn"](trunk, tmp_path / "best.safetensors", SIZES)
    state = detector.module.state_dict()
    assert not detector.untrained
    assert all(torch.equal(state[name], value) for name, value in rpn.items())


def test_weights_that_do_not_fit_are_refused(tmp_path: Path, trunk: Trunk) -> None:
    path = tmp_path / "best.safetensors"
    save_file({f"rpn.{k}": v for k, v in RegionProposals.untrained(2048, seed=0).state_dict().items()}, path)
    for kind, expected in (
        ("attention", "detector attention has no weights: name their detector with --detector, one of rpn, ssdlite"),
        ("rpn", "best.safetensors does not fit RegionProposals: size mismatch for conv.weight"),
        ("ssdlite", "best.safetensors does not fit SSD: .* weights are missing"),
    ):
        with pytest.raises(WeightsError, match=expected):
            DETECTORS[kind](trunk, path, SIZES)


def test_files_that_hold_no_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"no weights")
    with pytest.raises(WeightsError, match="cannot be read as safetensors"):
        read_weights(tmp_path / "bad.safetensors")
    for name in ("none.safetensors", "none.pth"):
        with pytest.raises(WeightsError, match="no weights file at"):
            read_weights(tmp_path / name)


def test_a_seeded_detector_tells_pictures_apart(trunk: Trunk) -> None:
    """With scores that are all alike, parity would show nothing."""
    before = torch.get_rng_state()
    detector = DETECTORS["ssdlite"](trunk, None, SIZES)
    assert torch.equal(torch.get_rng_state(), before)
    assert detector.untrained
    contract = graphs(SIZES, "ssdlite")["detector"]
    [case, *_] = cases("detector", SIZES, {}, "ssdlite")
    scores = eager(detector.module, contract, case.inputs)["box_scores"]
    assert scores[0, 0] - scores[0, -1] > 1e-4
    assert abs(scores[0] - scores[1]).max() > 1e-4


# The export, of the detector alone.


def wanted(**changes: Any) -> Wanted:
    return Wanted(backbone="efficientnet_lite0", descriptor="gem", detector="ssdlite", **changes)


def options(out: Path, *only: str, **changes: Any) -> ExportOptions:
    return ExportOptions(wanted=dataclasses.replace(wanted(), **changes), only=only, opset=18, out=out, dry_run=False)


@pytest.fixture(scope="module")
def networks() -> Networks:
    return build(wanted())


@pytest.fixture
def repository(tmp_path: Path, networks: Networks) -> Path:
    """A repository as an export with an SSD leaves it, its models a few bytes each."""
    entries = {}
    for name, graph in graphs(SIZES, "ssdlite").items():
        path = tmp_path / name / "1" / "model.onnx"
        path.parent.mkdir(parents=True)
        path.write_bytes(name.encode())
        figures: Any = {"opset": 18, "precision": "fp32", "bf16_refused": [], "parity": {}}
        entries[name] = ManifestEntry.of(graph, sha256=file_sha256(path), **figures)
    Manifest(profile=networks.profile, source="a test", graphs=entries).write(tmp_path)
    return tmp_path


def test_a_detector_without_training_is_told_as_other_stand_ins_are(networks: Networks, tmp_path: Path) -> None:
    assert "detector" in networks.profile.untrained
    assert "untrained" in networks.source
    assert UNTRAINED["detector"] == "random weights, seed 0"
    torch.save(ssdlite(None, seed=7, sizes=SIZES).network.state_dict(), tmp_path / "best.pth")
    trained = build(wanted(detector_weights=tmp_path / "best.pth"))
    assert "detector" not in trained.profile.untrained
    assert len(trained.profile.detector_sha256) == 64
    assert trained.profile.fingerprint == networks.profile.fingerprint
    assert trained.source.endswith("detector ssdlite, file best.pth")


@pytest.mark.parametrize("kind", ["attention", "rpn"])
def test_another_detector_than_the_one_that_stays_is_refused(repository: Path, kind: str) -> None:
    with pytest.raises(ExportError, match=f"holds the detector ssdlite; got {kind}: name the existing one"):
        export(options(repository, "lattqe", detector=kind), QUIET)


def test_other_weights_than_those_that_stay_are_refused(repository: Path, tmp_path: Path) -> None:
    torch.save(ssdlite(None, seed=7, sizes=SIZES).network.state_dict(), tmp_path / "best.pth")
    with pytest.raises(ExportError, match="got ssdlite, with other weights"):
        export(options(repository, "lattqe", detector_weights=tmp_path / "best.pth"), QUIET)


def test_the_export_replaces_a_detector_and_wires_it(repository: Path, networks: Networks) -> None:
    import onnx

    manifest = export(options(repository, "detector"), QUIET)
    assert manifest is not None
    entry = Manifest.read(repository).graphs["detector"]
    for figures in entry.parity.values():
        assert figures["boxes"] > 0.999 and figures["box_scores"] > 0.999 and figures["box_count"] == 1.0
    assert set(entry.parity) == {"onnxruntime-fp32", "openvino-fp32"}
    text = (repository / "describe_full" / "config.pbtxt").read_text()
    assert (
        parsed("ssdlite", "describe_full", sizes=manifest.profile.sizes).ensemble_scheduling
        == text_format.Parse(text, pb.ModelConfig()).ensemble_scheduling
    )
    path = repository / "detector" / "1" / "model.onnx"
    model = adapted(onnx.load(path))
    # TensorRT documents all of it.
    assert gaps(model) == () and plugins(model) == ()
    equals_eager(networks.modules["detector"], path)


def equals_eager(detector: Any, path: Path) -> None:
    """Compare at other sizes than the export has."""
    runs = {name: ENGINES[name](path) for name in ("onnxruntime-fp32", "openvino-fp32")}
    for batch, height, width in ((1, 240, 320), (3, 333, 217), (1, 64, 1600), (8, 64, 64)):
        image = photos(height, width, batch)
        expected = eager(detector, graphs(SIZES, "ssdlite")["detector"], {"image": image})
        assert expected["box_count"].min() > 0
        for name, run in runs.items():
            got = run({"image": image})
            where = f"{name} {batch} x {height}x{width}"
            assert boxes_iou(expected, got) > 0.999, where
            np.testing.assert_allclose(got["box_scores"], expected["box_scores"], atol=1e-3, err_msg=where)
            np.testing.assert_array_equal(got["box_count"], expected["box_count"], err_msg=where)


def test_the_command_says_what_does_not_go_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = str(tmp_path / "none.pth")
    assert command.main(["--detector-weights", weights, "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert "the detector attention has no weights" in error
    assert error.count("\n") == 1
    with pytest.raises(SystemExit) as stop:
        command.main(["--detector", "yolo"])
    assert stop.value.code == 2
