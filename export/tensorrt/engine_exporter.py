"""Export engines: plan, build, check against torch, and only then put them beside the ONNX graphs."""

from __future__ import annotations

import dataclasses
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from landseer.client.commands.output import console as plain_console
from landseer.ensemble.inference.contracts import Graph, graphs
from landseer.ensemble.inference.profile import Profile
from landseer.export.build import Networks, build
from landseer.export.examples import Case, cases
from landseer.export.exporter import ExportError, ExportOptions, export
from landseer.export.manifest import Manifest, ManifestError, file_sha256
from landseer.export.models.torch_file import WeightsError
from landseer.export.parity import check, eager
from landseer.export.tensorrt import builder
from landseer.export.tensorrt import engine as runner
from landseer.export.tensorrt.adapted import GraphError
from landseer.export.tensorrt.builder import BuilderSettings
from landseer.export.tensorrt.device import find_device
from landseer.export.tensorrt.engine_config import PLAN_FILE, config_path, engine_text
from landseer.export.tensorrt.errors import BuildError
from landseer.export.tensorrt.plan import Plan, plan
from landseer.export.tensorrt.profiles import ProfileError
from landseer.export.tensorrt.record import FILE, Engine, EngineRecord, drop_stale, remove_engine
from landseer.export.tensorrt.rounding import rehearsal
from landseer.export.tensorrt.sizes import MEASURED, PictureSizes, SizesError, read_sizes
from landseer.export.to_onnx import Arrays

LIMITS = {"fp16": "bf16", "fp32": "fp32"}
"""The limits of `parity` by engine precision; fp16 uses those of bf16."""
Expected = list[tuple[Case, Arrays]]


@dataclass(frozen=True, kw_only=True)
class _Job:
    """Common data of all graphs of an export."""

    options: ExportOptions
    settings: BuilderSettings
    networks: Networks

    @property
    def profile(self) -> Profile:
        return self.networks.profile

    def contract(self, name: str) -> Graph:
        return graphs(self.profile.sizes, self.profile.detector)[name]

    def onnx(self, name: str) -> Path:
        return self.options.out / name / self.options.version / "model.onnx"


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Options of `export/all.py --tensorrt` besides those of the export."""

    settings: BuilderSettings = field(default_factory=BuilderSettings)
    picture_sizes: Path | None = None


def export_engines(
    options: ExportOptions, wanted: EngineOptions, console: Console | None = None
) -> EngineRecord | None:
    """Build an engine for each graph in `options.only`. Returns the new record; None for a dry run, which rehearses.

    Exports the ONNX graphs first unless the repository already holds these. MissingError, with nothing changed, if this
    machine cannot build engines; ExportError for other failures. If TensorRT rejects a graph or its engine does not
    agree with torch, Triton keeps serving its ONNX file, and the record says why.
    """
    console = console or plain_console(sys.stderr, pipe_width=None)
    device = None if options.dry_run else find_device()
    try:
        sizes = read_sizes(wanted.picture_sizes) if wanted.picture_sizes else MEASURED
        job = _Job(options=options, settings=wanted.settings, networks=build(options.wanted))
        if not _exported(job):
            if device is None:
                raise ExportError(f"{options.out} does not hold these graphs yet: run without --dry-run first")
            export(options, console)
        plans = [_planned(job, name, sizes) for name in options.only]
        console.print(f"Tuned for {sizes.source}", soft_wrap=True)
        for planned in plans:
            console.print("\n".join(planned.lines()), highlight=False, soft_wrap=True)
        if device is None:
            _rehearse(job, plans, console)
            return None
        new = EngineRecord(device=device, version_compatible=wanted.settings.version_compatible, graphs={})
        return _write(job, plans, new, console)
    except (WeightsError, ManifestError, SizesError, GraphError, ProfileError, BuildError) as error:
        raise ExportError(str(error)) from error
    except OSError as error:
        raise ExportError(f"could not write to {options.out}: {error.strerror or error}") from error


def _exported(job: _Job) -> bool:
    """Return whether the repository already holds these graphs."""
    try:
        manifest = Manifest.read(job.options.out)
    except ManifestError:
        return False
    return _identity(manifest.profile) == _identity(job.profile) and all(
        name in manifest.graphs
        and job.onnx(name).exists()
        and file_sha256(job.onnx(name)) == manifest.graphs[name].sha256
        for name in job.options.only
    )


def _identity(profile: Profile) -> tuple[str, ...]:
    """Return what identifies the graphs of a profile."""
    return (
        profile.fingerprint,
        profile.locals_sha256,
        profile.patches_sha256,
        profile.detector,
        profile.detector_sha256,
        profile.version,
    )


def _planned(job: _Job, name: str, sizes: PictureSizes) -> Plan:
    return plan(job.contract(name), job.onnx(name), sizes=sizes, served=job.profile)


def _rehearse(job: _Job, plans: list[Plan], console: Console) -> None:
    """Print how well each graph agrees with torch when its fp16 layers are rounded on the CPU."""
    for planned in (planned for planned in plans if planned.precision is not None):
        agreement = check(job.contract(planned.name), _expected(job, planned.name), rehearsal(planned))
        figures = ", ".join(f"{output} {value:.5f}" for output, value in agreement.figures().items())
        console.print(f"{planned.name} rounded to fp16 on the CPU: {figures}", highlight=False, soft_wrap=True)
        for failure in agreement.failures(LIMITS["fp16"]):
            console.print(f"  below the limit: {failure}", highlight=False, soft_wrap=True)


def _write(job: _Job, plans: list[Plan], new: EngineRecord, console: Console) -> EngineRecord:
    """Build into a scratch folder beside the repository, then move engines that agreed into place."""
    out = job.options.out
    drop_stale(out)
    before = EngineRecord.read(out)
    kept = before.graphs if before and before.alike(new) else {}
    made: dict[str, Engine] = {}
    with tempfile.TemporaryDirectory(prefix=".landseer-tensorrt-", dir=out.resolve().parent) as scratch:
        for planned in plans:
            with console.status(f"{planned.name}: building and checking"):
                made[planned.name] = _made(job, planned, Path(scratch, planned.name))
            console.print(_outcome(planned.name, made[planned.name]), highlight=False, soft_wrap=True)
        for name in set(before.graphs if before else {}) - set(kept) - set(made):
            remove_engine(out, name)
        for name, engine in made.items():
            _install(job, name, engine, Path(scratch, name))
    record = dataclasses.replace(new, graphs=kept | made)
    record.write(out)
    if not any(engine.precision for engine in made.values()):
        raise ExportError(f"no engine was built; see {out / FILE} for the reasons")
    return record


def _made(job: _Job, planned: Plan, file: Path) -> Engine:
    """Build into `file`, in the best precision that agrees with torch."""
    contract, expected = job.contract(planned.name), _expected(job, planned.name)
    source, version = file_sha256(job.onnx(planned.name)), job.options.version
    refused: dict[str, list[str]] = {}
    for precision in ("fp16", "fp32") if planned.precision is not None else ("fp32",):
        attempt = _attempt(job, planned, contract, expected, precision)
        if not attempt.why:
            file.write_bytes(attempt.engine)
            return Engine(
                version=version,
                onnx_sha256=source,
                precision=precision,
                refused=refused,
                profiles=[dataclasses.asdict(profile) for profile in planned.profiles],
                parity=attempt.parity,
            )
        refused[precision] = attempt.why
    return Engine(version=version, onnx_sha256=source, precision=None, refused=refused)


@dataclass(frozen=True, kw_only=True)
class _Attempt:
    """An engine in one precision, or the reasons for its failure."""

    engine: bytes = b""
    parity: dict[str, float] = field(default_factory=dict)
    why: list[str] = field(default_factory=list)


def _expected(job: _Job, name: str) -> Expected:
    """Return the results of eager fp32 torch on every case that the ONNX graph was checked on."""
    module, modules = job.networks.modules[name], job.networks.modules
    every = cases(name, job.profile.sizes, modules, job.profile.detector)
    return [(case, eager(module, job.contract(name), case.inputs)) for case in every]


def _attempt(job: _Job, planned: Plan, contract: Graph, expected: Expected, precision: str) -> _Attempt:
    try:
        engine = builder.build(planned, job.settings, half=precision == "fp16")
        run = runner.load(engine, planned.profiles, version_compatible=job.settings.version_compatible)
        agreement = check(contract, expected, run)
    except RuntimeError as error:
        # The builder failed, the contract was broken, or memory ran out: another precision may work.
        return _Attempt(why=[str(error)])
    return _Attempt(engine=engine, parity=agreement.figures(), why=agreement.failures(LIMITS[precision]))


def _install(job: _Job, name: str, engine: Engine, file: Path) -> None:
    """Move an engine into place, its configuration last: until then Triton serves the ONNX graph."""
    remove_engine(job.options.out, name)
    if engine.precision is None:
        return
    shutil.move(file, job.onnx(name).with_name(PLAN_FILE))
    config, staged = job.options.out / config_path(name), file.with_suffix(".pbtxt")
    staged.write_text(engine_text(job.contract(name), precision=engine.precision, profiles=len(engine.profiles)))
    config.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(staged, config)


def _outcome(name: str, engine: Engine) -> str:
    refusals = [f"  not in {precision}: {'; '.join(why)}" for precision, why in engine.refused.items()]
    served = f"engine in {engine.precision}" if engine.precision else "stays with ONNX"
    return "\n".join((f"{name}: {served}", *refusals))
