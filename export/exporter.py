"""Export graphs: build, write, check, and only then move them into the repository."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from landseer.client.commands.output import console as plain_console
from landseer.ensemble.inference.contracts import Graph, ensembles, graphs
from landseer.ensemble.inference.profile import Profile
from landseer.export.build import UNTRAINED, Networks, Wanted, build
from landseer.export.config import all_configs
from landseer.export.engines import ENGINES, cpu_has_bf16
from landseer.export.examples import cases
from landseer.export.manifest import Manifest, ManifestEntry, ManifestError, file_sha256
from landseer.export.models.torch_file import WeightsError
from landseer.export.parity import check, eager
from landseer.export.to_onnx import write_onnx


class ExportError(RuntimeError):
    """The export failed and the repository is unchanged. The message is one readable line."""


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Options of `export/all.py`."""

    wanted: Wanted
    only: tuple[str, ...]
    opset: int
    out: Path
    dry_run: bool

    @property
    def version(self) -> str:
        """The version folder to write."""
        return self.wanted.version


def export(options: ExportOptions, console: Console | None = None) -> Manifest | None:
    """Export. Returns the new manifest, None for a dry run. ExportError if it fails."""
    console = console or plain_console(sys.stderr, pipe_width=None)
    started = time.monotonic()
    try:
        networks = build(options.wanted)
        before = _kept(options, networks)
        _announce(console, networks)
        if options.dry_run:
            _list(console, options)
            return None
        manifest = _write(options, networks, before, console)
    except (WeightsError, ManifestError) as error:
        raise ExportError(str(error)) from error
    except OSError as error:
        raise ExportError(f"could not write to {options.out}: {error.strerror or error}") from error
    console.print(f"Wrote {options.out} in {time.monotonic() - started:.0f} s.")
    return manifest


def _kept(options: ExportOptions, networks: Networks) -> dict[str, ManifestEntry]:
    """Return the entries of graphs that are kept, after checking that they fit the new ones."""
    names = set(_contracts(networks)) - set(options.only)
    if not names:
        return {}
    manifest = Manifest.read(options.out)
    if manifest.profile.fingerprint != networks.profile.fingerprint:
        raise ExportError(
            f"{options.out} holds graphs of {manifest.profile.backbone} with other weights or sizes, which do not fit "
            f"these of {options.wanted.backbone}: export all graphs (without --only), or to another folder with --out"
        )
    if "detector" in names:
        _check_detector(options, manifest.profile, networks.profile)
    if "lattqe" in names:
        _check_lattqe(options, manifest.profile, networks.profile)
    if "backbone" in names:
        _check_locals(options, manifest.profile, networks.profile)
        _check_patches(options, manifest.profile, networks.profile)
    # A profile has one version, so graphs that are kept move to it too.
    return {name: entry for name, entry in manifest.graphs.items() if name in names}


def _check_detector(options: ExportOptions, kept: Profile, wanted: Profile) -> None:
    """Raise ExportError unless a kept detector is the one in the new profile."""
    if (kept.detector, kept.detector_sha256) == (wanted.detector, wanted.detector_sha256):
        return
    same = ", with other weights" if kept.detector == wanted.detector else ""
    raise ExportError(
        f"{options.out} holds the detector {kept.detector}; got {wanted.detector}{same}: name the existing one with "
        f"--detector and --detector-weights, or export the new one too with --only detector"
    )


def _check_locals(options: ExportOptions, kept: Profile, wanted: Profile) -> None:
    """Raise ExportError unless a kept backbone computes the local descriptors of the new profile."""
    if kept.locals_sha256 == wanted.locals_sha256:
        return
    found = "other local descriptors" if kept.locals_sha256 else "no local descriptors"
    raise ExportError(
        f"{options.out} holds a backbone with {found}: export it too with --only backbone, or export all graphs "
        "(without --only)"
    )


def _check_patches(options: ExportOptions, kept: Profile, wanted: Profile) -> None:
    """Raise ExportError unless a kept backbone computes the patches of the new profile."""
    if kept.patches_sha256 == wanted.patches_sha256:
        return
    found = "other patches" if kept.patches_sha256 else "no patches"
    raise ExportError(
        f"{options.out} holds a backbone with {found}: export it too with --only backbone, or export all graphs "
        "(without --only)"
    )


def _check_lattqe(options: ExportOptions, kept: Profile, wanted: Profile) -> None:
    """Raise ExportError if the new profile would call a `lattqe` that stays trained when it is not, or the reverse."""
    found, got = ("untrained" if "lattqe" in one.untrained else "trained" for one in (kept, wanted))
    if found != got:
        mend = "name its file with --lattqe, or " if found == "trained" else ""
        raise ExportError(f"{options.out} holds {found} `lattqe` weights: {mend}write it too, with --only lattqe")


def _contracts(networks: Networks) -> dict[str, Graph]:
    return graphs(networks.profile.sizes, networks.profile.detector)


def _announce(console: Console, networks: Networks) -> None:
    console.print(f"Backbone {networks.profile.backbone}: {networks.source}")
    for part in networks.profile.untrained:
        console.print(Text.assemble(("untrained", "yellow"), f" {part}: {UNTRAINED[part]}"))
    for doubt in networks.doubts:
        console.print(Text.assemble(("warning", "yellow"), f" {doubt}"))


def _list(console: Console, options: ExportOptions) -> None:
    for name in options.only:
        console.print(f"would write {options.out / name / options.version / 'model.onnx'}")
        console.print(f"would write {options.out / name / 'config.pbtxt'}")
    for name in ensembles():
        console.print(f"would write {options.out / name / 'config.pbtxt'}")
    console.print(f"would write {options.out / 'manifest.json'}")


def _write(options: ExportOptions, networks: Networks, kept: dict[str, ManifestEntry], console: Console) -> Manifest:
    """Write into a scratch folder, check there, then move each model into place.

    The scratch folder lies beside the repository: inside, Triton would take it for a model.
    """
    options.out.mkdir(parents=True, exist_ok=True)
    contracts = _contracts(networks)
    with tempfile.TemporaryDirectory(prefix=".landseer-export-", dir=options.out.resolve().parent) as scratch:
        entries = {}
        with _progress(console) as bar:
            for name in options.only:
                task = bar.add_task(name, total=None, doing="starting")
                path = Path(scratch, name, "model.onnx")
                path.parent.mkdir()

                def step(text: str, done: int, total: int, task: Any = task) -> None:
                    bar.update(task, doing=text, completed=done, total=total)

                entries[name] = _export_graph(contracts[name], networks, path, opset=options.opset, step=step)
                why = ", bf16 does not agree" if entries[name].bf16_refused else ""
                bar.update(task, doing=f"done, served in {entries[name].precision}{why}")
        manifest = Manifest(profile=networks.profile, source=networks.source, graphs=kept | entries)
        _install(Path(scratch), options, manifest, kept)
    return manifest


def _export_graph(
    graph: Graph, networks: Networks, path: Path, *, opset: int, step: Callable[[str, int, int], None]
) -> ManifestEntry:
    total = 3 + len(ENGINES)
    module = networks.modules[graph.name]
    step("running eager torch", 0, total)
    profile = networks.profile
    expected = [
        (case, eager(module, graph, case.inputs))
        for case in cases(graph.name, profile.sizes, networks.modules, profile.detector)
    ]
    step("exporting", 1, total)
    write_onnx(module, graph, expected[0][0].inputs, path, opset=opset)
    parity, precision, refused = {}, "fp32", list[str]()
    for i, (engine, load) in enumerate(ENGINES.items()):
        step(f"checking on {engine}", 2 + i, total)
        half = engine.endswith("bf16")
        if half and not (graph.half_precision and cpu_has_bf16()):
            continue
        agreement = check(graph, expected, load(path))
        failures = agreement.failures("bf16" if half else "fp32")
        if failures and not half:
            raise ExportError(f"{graph.name} on {engine} does not agree with torch: {'; '.join(failures)}")
        parity[engine] = agreement.figures()
        # bf16 is optional: if it does not agree well enough, the graph is served in fp32.
        if half:
            precision, refused = ("fp32", failures) if failures else ("bf16", [])
    step("checked", total, total)
    return ManifestEntry.of(
        graph, sha256=file_sha256(path), opset=opset, precision=precision, bf16_refused=refused, parity=parity
    )


def _install(scratch: Path, options: ExportOptions, manifest: Manifest, kept: dict[str, ManifestEntry]) -> None:
    for name in options.only:
        folder = options.out / name / options.version
        folder.mkdir(parents=True, exist_ok=True)
        shutil.move(scratch / name / "model.onnx", folder / "model.onnx")
    for name in kept:
        _carry_along(options.out / name, manifest, name, options.version)
    precision = {name: entry.precision for name, entry in manifest.graphs.items()}
    for name in ensembles():
        # An ensemble has no file, but Triton requires its version folder.
        (options.out / name / options.version).mkdir(parents=True, exist_ok=True)
    for path, text in all_configs(manifest.profile, precision).items():
        (options.out / path).parent.mkdir(parents=True, exist_ok=True)
        staged = scratch / path.replace("/", "-")
        staged.write_text(text)
        shutil.move(staged, options.out / path)
    manifest.write(options.out)


def _carry_along(folder: Path, manifest: Manifest, name: str, version: str) -> None:
    """Copy the newest version of a kept graph into `version`, unless it is there already."""
    target = folder / version / "model.onnx"
    if target.exists():
        return
    versions = sorted((int(p.parent.name) for p in folder.glob("*/model.onnx")), reverse=True)
    for number in versions:
        source = folder / str(number) / "model.onnx"
        if file_sha256(source) == manifest.graphs[name].sha256:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            return
    raise ExportError(f"{folder} has no version listed in the manifest: export all graphs (without --only)")


def _progress(console: Console) -> Progress:
    name, doing = TextColumn("{task.description:12}"), TextColumn("{task.fields[doing]}")
    return Progress(name, BarColumn(), doing, TimeElapsedColumn(), console=console)
