"""The export as its user meets it, on its cheapest graph; tests/stack exports them all."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from landseer.ensemble.inference.contracts import Graph, Sizes, graphs
from landseer.export import all as command
from landseer.export import exporter, parity
from landseer.export.build import Networks, Wanted, build, load_descriptor
from landseer.export.examples import Case, cases
from landseer.export.exporter import ExportError, ExportOptions, export
from landseer.export.lattqe_file import write_lattqe
from landseer.export.manifest import Manifest, ManifestEntry, file_sha256
from landseer.export.models.relational import RelationalLAttQE
from landseer.export.to_onnx import OPSETS, check_format, write_onnx

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def networks() -> Networks:
    return build(Wanted(backbone="efficientnet_lite0"))


def options(out: Path, **changes: object) -> ExportOptions:
    plain = ExportOptions(
        wanted=Wanted(backbone="efficientnet_lite0"), only=("coattention",), opset=18, out=out, dry_run=False
    )
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


@pytest.fixture
def repository(tmp_path: Path, networks: Networks) -> Path:
    """A repository as an earlier export leaves it, its models a few bytes each."""
    entries = {}
    for name, graph in graphs(networks.profile.sizes).items():
        path = tmp_path / name / "1" / "model.onnx"
        path.parent.mkdir(parents=True)
        path.write_bytes(name.encode())
        entries[name] = ManifestEntry.of(
            graph, sha256=file_sha256(path), opset=18, precision="fp32", bf16_refused=[], parity={}
        )
    Manifest(profile=networks.profile, source="a test", graphs=entries).write(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def checks(networks: Networks) -> list[Case]:
    return list(cases("coattention", networks.profile.sizes, networks.modules))


@pytest.fixture(scope="module")
def written(networks: Networks, checks: list[Case], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of co-attention, written once."""
    path, graph = tmp_path_factory.mktemp("written") / "model.onnx", graphs(networks.profile.sizes)["coattention"]
    write_onnx(networks.modules["coattention"], graph, checks[0].inputs, path, opset=18)
    return path


@pytest.fixture
def at_hand(written: Path, checks: list[Case], monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of what comes around writing, which takes seconds: the same photographs and the same file each time."""

    def copied(module: object, graph: Graph, example: object, path: Path, *, opset: int) -> None:
        assert (graph.name, opset) == ("coattention", 18)
        shutil.copy(written, path)

    monkeypatch.setattr(exporter, "cases", lambda *_: checks)
    monkeypatch.setattr(exporter, "write_onnx", copied)


def test_only_replaces_one_graph_and_keeps_the_others(repository: Path) -> None:
    manifest = export(options(repository), QUIET)
    assert manifest is not None
    assert (repository / "detector" / "1" / "model.onnx").read_bytes() == b"detector"
    model = repository / "coattention" / "1" / "model.onnx"
    check_format(model, 18)
    entry = Manifest.read(repository).graphs["coattention"]
    assert entry.sha256 == file_sha256(model)
    assert entry.parity["onnxruntime-fp32"]["scores"] > 0.9999
    assert Manifest.read(repository).profile == manifest.profile
    assert {path.name for path in repository.iterdir()} == {
        *graphs(Sizes(channels=1)),
        "describe",
        "describe_full",
        "manifest.json",
    }


def test_a_lattqe_that_stays_keeps_its_mark(
    repository: Path, at_hand: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = Manifest.read(repository)
    assert manifest.profile.untrained == ()
    marked = dataclasses.replace(manifest, profile=dataclasses.replace(manifest.profile, untrained=("lattqe",)))
    marked.write(repository)
    with pytest.raises(ExportError, match="holds untrained `lattqe` weights: write it too, with --only lattqe"):
        export(options(repository), QUIET)
    manifest.write(repository)
    # As for a descriptor for which none ships.
    monkeypatch.setattr("landseer.export.build.shipped_lattqe", lambda backbone, kind: None)
    with pytest.raises(ExportError, match="holds trained `lattqe` weights: name its file with --lattqe, or write it"):
        export(options(repository), QUIET)
    trained = tmp_path / "lattqe.safetensors"
    write_lattqe(RelationalLAttQE.untrained(Sizes(channels=1280), seed=0), trained, {})
    found = export(options(repository, wanted=Wanted(backbone="efficientnet_lite0", lattqe=trained)), QUIET)
    assert found is not None and "lattqe" not in found.profile.untrained


def test_a_lattqe_of_other_descriptors_is_told(
    repository: Path, at_hand: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained, wanted = tmp_path / "lattqe.safetensors", Wanted(backbone="efficientnet_lite0")
    network = RelationalLAttQE.untrained(Sizes(channels=1280), seed=0)
    for descriptor, told in ((load_descriptor(wanted).sha256, False), ("another", True), ("", False)):
        write_lattqe(network, trained, {}, descriptor=descriptor)
        export(options(repository, wanted=dataclasses.replace(wanted, lattqe=trained), dry_run=True))
        said = " ".join(capsys.readouterr().err.split())
        assert ("learned on other descriptors than these" in said) == told, said


def test_a_new_version_brings_the_other_graphs_along(repository: Path, at_hand: None) -> None:
    export(options(repository, wanted=Wanted(backbone="efficientnet_lite0", version="2")), QUIET)
    assert (repository / "detector" / "2" / "model.onnx").read_bytes() == b"detector"
    assert (repository / "describe" / "2").is_dir()
    assert (repository / "coattention" / "1" / "model.onnx").read_bytes() == b"coattention"


def test_the_newest_opset_is_written_too(repository: Path) -> None:
    export(options(repository, opset=OPSETS[-1]), QUIET)
    check_format(repository / "coattention" / "1" / "model.onnx", OPSETS[-1])


def test_a_dry_run_writes_nothing(tmp_path: Path, networks: Networks) -> None:
    every = tuple(graphs(networks.profile.sizes))
    assert export(options(tmp_path / "new", dry_run=True, only=every), QUIET) is None
    assert not (tmp_path / "new").exists()


def test_folders_in_brackets_are_named_as_they_are(
    tmp_path: Path, networks: Networks, capsys: pytest.CaptureFixture[str]
) -> None:
    every = tuple(graphs(networks.profile.sizes))
    export(options(tmp_path / "models[red]", dry_run=True, only=every))
    assert "models[red]/manifest.json" in capsys.readouterr().err.replace("\n", "")


def test_a_failed_check_fails_the_export_and_changes_nothing(
    repository: Path, at_hand: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()}
    genuine = exporter.eager

    def wrong(module: object, graph: Graph, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        outputs = genuine(module, graph, inputs)  # type: ignore[arg-type]
        return outputs | {"scores": outputs["scores"] + np.float32(0.01)}

    monkeypatch.setattr(exporter, "eager", wrong)
    with pytest.raises(ExportError, match="coattention on onnxruntime-fp32 does not agree with torch: scores"):
        export(options(repository), QUIET)
    assert {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()} == before


def test_only_without_an_earlier_export_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="holds no export yet: run without --only first"):
        export(options(tmp_path), QUIET)


def test_only_beside_another_backbones_graphs_is_refused(repository: Path) -> None:
    data = json.loads((repository / "manifest.json").read_text())
    data["profile"]["weights_sha256"] = "f" * 64
    (repository / "manifest.json").write_text(json.dumps(data))
    with pytest.raises(ExportError, match="with other weights or sizes"):
        export(options(repository), QUIET)


@pytest.mark.parametrize(
    ("kept", "said"), [("", "with no local descriptors"), ("f" * 64, "with other local descriptors")]
)
def test_only_beside_a_backbone_with_other_local_descriptors_is_refused(
    kept: str, said: str, repository: Path, networks: Networks
) -> None:
    data = json.loads((repository / "manifest.json").read_text())
    data["profile"]["locals_sha256"] = kept
    (repository / "manifest.json").write_text(json.dumps(data))
    with pytest.raises(ExportError, match=said):
        export(options(repository), QUIET)
    assert export(options(repository, only=tuple(graphs(networks.profile.sizes)), dry_run=True), QUIET) is None


def test_an_unusable_weights_file_is_one_readable_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "weights.pth"
    bad.write_bytes(b"no weights")
    for path, expected in ((bad, "is not a torch state dict"), (tmp_path / "none.pth", "no weights file at")):
        assert command.main(["--weights", str(path), "--out", str(tmp_path / "out")]) == 1
        error = capsys.readouterr().err
        assert expected in error
        assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_place_that_cannot_be_written_is_one_readable_line(
    tmp_path: Path, networks: Networks, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert command.main(["--out", str(tmp_path / "file" / "repository")]) == 1
    assert "export: error: could not write to" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["--version", "0"], ["--version", "x"], ["--long-side", "650"], ["--opset", "9"]]
)
def test_wrong_arguments_exit_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        command.main(arguments)
    assert stop.value.code == 2


def test_every_output_of_every_graph_has_a_limit_or_a_reason_not_to() -> None:
    outputs = {tensor.name for graph in graphs(Sizes(channels=1)).values() for tensor in graph.outputs}
    # These follow the selection, which local_positions measures.
    assert outputs - set(parity.MEASURES) == {"local_features", "local_scales", "local_norms"}
    assert set(parity.MEASURES) == set(parity.LIMITS)
