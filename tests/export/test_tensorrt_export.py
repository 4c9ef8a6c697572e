"""`export/all.py --tensorrt` as its user meets it, on a machine without a GPU.

Three things cannot be had here and have stand-ins: the builder's bindings are a recording fake in the one test of the
order of calls; and where the export's own decisions are tested, ONNX Runtime runs the plan that TensorRT would build.
"""

import dataclasses
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from rich.console import Console

from landseer.ensemble.inference.contracts import graphs
from landseer.export import all as command
from landseer.export.build import Networks, Wanted, build
from landseer.export.examples import Case, cases
from landseer.export.exporter import ExportError, ExportOptions, export
from landseer.export.manifest import Manifest, ManifestEntry, file_sha256
from landseer.export.models.trunks import DEFAULT_BACKBONE
from landseer.export.tensorrt import builder, device, engine_exporter, timing_cache
from landseer.export.tensorrt import engine as runner
from landseer.export.tensorrt.builder import BuilderSettings
from landseer.export.tensorrt.device import Device, MissingError, find_device
from landseer.export.tensorrt.engine_exporter import EngineOptions, export_engines
from landseer.export.tensorrt.errors import BuildError
from landseer.export.tensorrt.plan import Plan, plan
from landseer.export.tensorrt.precision import Choice, Precision, choose
from landseer.export.tensorrt.profiles import ShapeProfile, Span, nearest
from landseer.export.tensorrt.record import EngineRecord, drop_stale

QUIET = Console(quiet=True)
GPU = Device(gpu="a stand-in", capability="9.0", tensorrt="10.16.1.11")


@pytest.fixture(scope="module")
def networks() -> Networks:
    return build(Wanted(backbone=DEFAULT_BACKBONE))


def options(out: Path, **changes: Any) -> ExportOptions:
    plain = ExportOptions(
        wanted=Wanted(backbone=DEFAULT_BACKBONE), only=("coattention",), opset=18, out=out, dry_run=False
    )
    return dataclasses.replace(plain, **changes)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, networks: Networks) -> Path:
    """A repository in which co-attention is really exported, and the other graphs are a few bytes."""
    out = tmp_path_factory.mktemp("exported") / "repository"
    entries = {}
    for name, graph in graphs(networks.profile.sizes).items():
        path = out / name / "1" / "model.onnx"
        path.parent.mkdir(parents=True)
        path.write_bytes(name.encode())
        figures: Any = {"opset": 18, "precision": "fp32", "bf16_refused": [], "parity": {}}
        entries[name] = ManifestEntry.of(graph, sha256=file_sha256(path), **figures)
    Manifest(profile=networks.profile, source="a test", graphs=entries).write(out)
    export(options(out), QUIET)
    return out


@pytest.fixture
def repository(tmp_path: Path, exported: Path) -> Path:
    return shutil.copytree(exported, tmp_path / "repository")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def onnx_run(engine: bytes, profiles: tuple[ShapeProfile, ...], *, version_compatible: bool) -> Callable[..., Any]:
    session = onnxruntime.InferenceSession(engine, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(inputs: dict[str, np.ndarray]) -> dict[str, Any]:
        nearest(profiles, {name: array.shape for name, array in inputs.items()})
        return dict(zip(names, session.run(names, inputs), strict=True))

    return run


@pytest.fixture(scope="module")
def checks(networks: Networks) -> list[Case]:
    return list(cases("coattention", networks.profile.sizes, networks.modules))


@pytest.fixture
def halves(monkeypatch: pytest.MonkeyPatch, networks: Networks, checks: list[Case]) -> list[bool]:
    """A machine with a stand-in for the GPU. Returns, for every engine built, whether it was to be in fp16."""
    asked: list[bool] = []

    def built(plan: Plan, settings: BuilderSettings, *, half: bool) -> bytes:
        asked.append(half)
        return plan.model

    monkeypatch.setattr(engine_exporter, "find_device", lambda: GPU)
    monkeypatch.setattr(engine_exporter, "build", lambda *_: networks)
    monkeypatch.setattr(engine_exporter, "cases", lambda *_: checks)
    monkeypatch.setattr(builder, "build", built)
    monkeypatch.setattr(runner, "load", onnx_run)
    return asked


def no_export(*_: object) -> None:
    raise AssertionError("the graphs were there already")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (ModuleNotFoundError("No module named 'tensorrt'", name="tensorrt"), "missing Python module tensorrt"),
        (ImportError("libnvinfer.so.10: cannot open shared object file"), "libraries cannot be loaded (libnvinfer"),
        (None, "TensorRT 11.4.0 is installed, but 10 is needed"),
    ],
)
def test_without_the_builder_it_says_what_is_missing_and_exits_2(
    fault: Exception | None,
    said: str,
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def imported(name: str) -> Any:
        if fault is not None:
            raise fault
        return SimpleNamespace(__version__="11.4.0")

    monkeypatch.setattr(device, "importlib", SimpleNamespace(import_module=imported))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    before = contents(repository)
    assert command.main(["--tensorrt", "--out", str(repository)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "pip install 'landseer[gpu]'" in error
    assert "nvidia-smi must list a GPU" in error
    assert contents(repository) == before


def test_a_machine_with_everything_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__="10.16.1.11"))  # type: ignore[arg-type]
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "NVIDIA L4")
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda: (8, 9))
    assert find_device() == Device(gpu="NVIDIA L4", capability="8.9", tensorrt="10.16.1.11")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(MissingError, match="torch sees no CUDA device"):
        find_device()


def test_an_engine_that_agrees_is_put_beside_the_graph(
    repository: Path, halves: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_exporter, "export", no_export)
    before = contents(repository)
    record = export_engines(options(repository), EngineOptions(), QUIET)
    assert record is not None
    assert halves == [False], "its contract keeps co-attention in fp32"
    after = contents(repository)
    added = {"coattention/1/model.plan", "coattention/configs/tensorrt.pbtxt", "tensorrt.json"}
    assert set(after) - set(before) == added
    assert {name: after[name] for name in before} == before
    read = EngineRecord.read(repository)
    assert read is not None
    assert (read.device, list(read.graphs)) == (GPU, ["coattention"])
    found = read.graphs["coattention"]
    assert (found.precision, found.refused, len(found.profiles)) == ("fp32", {}, 3)
    assert found.parity["scores"] > 0.9999
    assert found.onnx_sha256 == file_sha256(repository / "coattention" / "1" / "model.onnx")
    assert b'profile: "2"' in after["coattention/configs/tensorrt.pbtxt"]


def half_plan(*args: Any, **kwargs: Any) -> Plan:
    return dataclasses.replace(plan(*args, **kwargs), precision=Precision(choices=()))


def test_an_engine_that_does_not_agree_in_fp16_is_built_in_fp32(
    repository: Path, halves: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    def worse_in_half(engine: bytes, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        run, off = onnx_run(engine, *args, **kwargs), np.float32(0.01 if halves[-1] else 0.0)
        return lambda inputs: {name: value + off for name, value in run(inputs).items()}

    monkeypatch.setattr(engine_exporter, "plan", half_plan)
    monkeypatch.setattr(runner, "load", worse_in_half)
    record = export_engines(options(repository), EngineOptions(), QUIET)
    assert record is not None
    assert halves == [True, False]
    engine = record.graphs["coattention"]
    assert engine.precision == "fp32"
    refusal = re.match(r"scores: ([\d.]+) on ", engine.refused["fp16"][0])
    assert refusal is not None and float(refusal[1]) == pytest.approx(0.99, abs=1e-3)
    assert 'string_value: "fp32"' in (repository / "coattention" / "configs" / "tensorrt.pbtxt").read_text()


def test_a_graph_that_is_refused_stays_with_onnx_and_loses_its_old_engine(
    repository: Path, halves: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    export_engines(options(repository), EngineOptions(), QUIET)

    def refuse(*_: object, **__: object) -> bytes:
        raise BuildError("TensorRT rejects the graph: TopK 'n': no")

    monkeypatch.setattr(builder, "build", refuse)
    with pytest.raises(ExportError, match="no engine was built; see"):
        export_engines(options(repository), EngineOptions(), QUIET)
    assert not (repository / "coattention" / "1" / "model.plan").exists()
    assert not (repository / "coattention" / "configs" / "tensorrt.pbtxt").exists()
    engine = json.loads((repository / "tensorrt.json").read_text())["graphs"]["coattention"]
    assert engine["precision"] is None
    assert engine["refused"] == {"fp32": ["TensorRT rejects the graph: TopK 'n': no"]}


def test_engines_of_another_gpu_are_not_kept(
    repository: Path, halves: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    export_engines(options(repository), EngineOptions(), QUIET)
    record = EngineRecord.read(repository)
    assert record is not None
    other = {**record.graphs, "detector": record.graphs["coattention"]}
    dataclasses.replace(record, device=dataclasses.replace(GPU, gpu="another"), graphs=other).write(repository)
    (repository / "detector" / "1" / "model.plan").write_bytes(b"of another GPU")
    made = export_engines(options(repository), EngineOptions(), QUIET)
    assert made is not None
    assert set(made.graphs) == {"coattention"}
    assert not (repository / "detector" / "1" / "model.plan").exists()


def test_a_graph_that_changes_loses_its_engine(repository: Path, halves: list[bool]) -> None:
    export_engines(options(repository), EngineOptions(), QUIET)
    assert drop_stale(repository) == []
    (repository / "coattention" / "1" / "model.onnx").write_bytes(b"another")
    assert drop_stale(repository) == ["coattention"]
    assert not (repository / "coattention" / "1" / "model.plan").exists()
    assert not (repository / "coattention" / "configs" / "tensorrt.pbtxt").exists()
    assert drop_stale(repository) == []
    (repository / "tensorrt.json").write_text("{")
    with pytest.raises(BuildError, match="delete it and build the engines again"):
        drop_stale(repository)


def test_a_newer_version_of_a_graph_loses_the_engine_of_the_older(repository: Path, halves: list[bool]) -> None:
    export_engines(options(repository), EngineOptions(), QUIET)
    (repository / "coattention" / "2").mkdir()
    assert drop_stale(repository) == ["coattention"]


def test_an_engine_that_is_gone_is_forgotten(repository: Path, halves: list[bool]) -> None:
    export_engines(options(repository), EngineOptions(), QUIET)
    (repository / "coattention" / "1" / "model.plan").unlink()
    assert drop_stale(repository) == ["coattention"]
    assert not (repository / "coattention" / "configs" / "tensorrt.pbtxt").exists()


def test_a_dry_run_says_what_would_be_built_and_writes_nothing(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(repository)
    arguments = ["--tensorrt", "--dry-run", "--only", "coattention", "--out", str(repository)]
    assert command.main(arguments) == 0
    said = capsys.readouterr().err
    assert "coattention: fp32 throughout" in said
    assert "profile candidate_clusters 1x1x10x512 to 4x1000x10x512, tuned for 4x1000x10x512" in said
    assert contents(repository) == before
    assert command.main([*arguments[:4], "--out", str(repository / "none")]) == 1
    assert "does not hold these graphs yet" in capsys.readouterr().err
    # The same vectors, but boxes of another detector: the repository does not hold what was asked for.
    assert command.main([*arguments, "--detector", "rpn"]) == 1
    assert "does not hold these graphs yet" in capsys.readouterr().err


def test_a_dry_run_rehearses_fp16_on_the_cpu(
    repository: Path, halves: list[bool], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def every_layer_half(*args: Any, **kwargs: Any) -> Plan:
        made = plan(*args, **kwargs)
        choices = choose(onnx.load_from_string(made.model)).choices
        half = tuple(dataclasses.replace(choice, half=True) for choice in choices)
        return dataclasses.replace(made, precision=Precision(choices=half))

    monkeypatch.setattr(engine_exporter, "plan", every_layer_half)
    assert export_engines(options(repository, dry_run=True), EngineOptions(), Console(stderr=True)) is None
    said = capsys.readouterr().err
    assert "coattention rounded to fp16 on the CPU: scores" in said
    assert halves == []


@pytest.mark.parametrize("wrong", ["0", "-1", "nan", "x"])
def test_wrong_workspace_exits_with_2(wrong: str) -> None:
    with pytest.raises(SystemExit) as stop:
        command.main(["--tensorrt", f"--workspace-gib={wrong}"])
    assert stop.value.code == 2


# The builder's calls, on a recording fake: their order and arguments, nothing of what they do.


class Recorder:
    """Answers every call with another of its kind, and writes the calls down."""

    def __init__(self, calls: list[str], name: str = "", answers: dict[str, Any] | None = None) -> None:
        self._calls, self._name, self._answers = calls, name, answers or {}

    def __getattr__(self, name: str) -> Any:
        path = f"{self._name}.{name}".lstrip(".")
        return self._answers.get(path, Recorder(self._calls, path, self._answers))

    def __call__(self, *args: Any) -> Any:
        said = ", ".join(str(arg) if isinstance(arg, str | int | tuple | Recorder) else "..." for arg in args)
        self._calls.append(f"{self._name}({said})")
        return self._answers.get(f"{self._name}()", self)

    def __str__(self) -> str:
        return self._name.rsplit(".", maxsplit=1)[-1]

    def __index__(self) -> int:
        return 0


def layer(name: str, kind: str, *, metadata: str = "", dtype: str = "FLOAT") -> Any:
    made = SimpleNamespace(name=name, metadata=metadata, type=kind, num_outputs=1, precision=None, types={})
    made.get_output = lambda _: SimpleNamespace(dtype=dtype)
    made.set_output_type = made.types.__setitem__
    return made


def test_the_builder_is_called_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = [
        layer("conv", "CONVOLUTION", metadata="[ONNX Layer: conv]"),
        layer("conv_helper", "SHUFFLE", metadata="[ONNX Layer: conv]"),
        layer("norm", "NORMALIZATION"),
        layer("both", "SHUFFLE", metadata="[ONNX Layer: conv]\x1f[ONNX Layer: norm]"),
        layer("made by the parser", "ELEMENTWISE"),
        layer("ids", "GATHER", dtype="INT64"),
        layer("weights", "CONSTANT"),
        layer("cast", "CAST"),
    ]
    network = SimpleNamespace(num_layers=len(layers), get_layer=layers.__getitem__)
    kinds = SimpleNamespace(**{k: k for k in ("CONSTANT", "SHAPE", "CAST", "PLUGIN", "PLUGIN_V2", "PLUGIN_V3")})
    calls: list[str] = []
    answers = {
        "ILogger": type("ILogger", (), {"Severity": SimpleNamespace(ERROR=1, INTERNAL_ERROR=0)}),
        "Builder.create_network()": network,
        "Builder.build_serialized_network()": b"an engine",
        "Builder.create_optimization_profile()": Recorder(calls, "profile"),
        "Builder.create_builder_config()": Recorder(calls, "config", {"config.add_optimization_profile()": 0}),
        "OnnxParser.parse()": True,
        "LayerType": kinds,
        "DataType": SimpleNamespace(FLOAT="FLOAT"),
        "Dims": lambda shape: shape,
    }
    monkeypatch.setitem(sys.modules, "tensorrt", Recorder(calls, "", answers))  # type: ignore[arg-type]
    choices = tuple(Choice(node=n, op="", half=n == "conv", why="") for n in ("conv", "norm"))
    span = Span(name="image", least=(1, 64), usual=(8, 640), most=(8, 1600))
    wanted = Plan(
        name="backbone",
        model=b"onnx",
        profiles=(ShapeProfile(spans=(span,)),),
        precision=Precision(choices=choices),
        gaps=(),
        plugins=(),
    )
    assert builder.build(wanted, BuilderSettings(workspace_gib=2.0), half=True) == b"an engine"
    assert calls == [
        "Builder(...)",
        "Builder.create_network(0)",
        "init_libnvinfer_plugins(..., )",
        "OnnxParser(..., ...)",
        "OnnxParser.parse(...)",
        "Builder.create_builder_config()",
        "config.set_memory_pool_limit(WORKSPACE, 2147483648)",
        "config.clear_flag(TF32)",
        "config.set_flag(FP16)",
        "config.set_flag(OBEY_PRECISION_CONSTRAINTS)",
        "Builder.create_optimization_profile()",
        "profile.set_shape(image, (1, 64), (8, 640), (8, 1600))",
        "config.add_optimization_profile(profile)",
        "Builder.build_serialized_network(..., config)",
    ]
    held = [made.name for made in layers if made.precision == "FLOAT" and made.types == {0: "FLOAT"}]
    assert held == ["norm", "both", "made by the parser"]


class Config:
    """The part of the builder's configuration that holds a timing cache."""

    def __init__(self, *, fits: bool) -> None:
        self.fits, self.content = fits, b""

    def create_timing_cache(self, content: bytes) -> bytes:
        self.content = content
        return content

    def set_timing_cache(self, cache: bytes, *, ignore_mismatch: bool) -> bool:
        return self.fits and not ignore_mismatch

    def get_timing_cache(self) -> Any:
        return SimpleNamespace(serialize=lambda: self.content + b" more")


def test_the_timing_cache_is_read_and_written_whole(tmp_path: Path) -> None:
    config, path = Config(fits=True), tmp_path / "new" / "times"
    for expected in (b" more", b" more more"):
        timing_cache.use(config, path)  # type: ignore[arg-type]
        timing_cache.keep(config, path)  # type: ignore[arg-type]
        assert path.read_bytes() == expected
    assert [file.name for file in path.parent.iterdir()] == ["times"]
    with pytest.raises(BuildError, match="not a timing cache of this GPU and TensorRT: delete it"):
        timing_cache.use(Config(fits=False), path)  # type: ignore[arg-type]
    with pytest.raises(BuildError, match="cannot read the timing cache"):
        timing_cache.use(config, tmp_path)  # type: ignore[arg-type]
    with pytest.raises(BuildError, match="cannot write"):
        timing_cache.keep(config, path / "below a file")  # type: ignore[arg-type]
