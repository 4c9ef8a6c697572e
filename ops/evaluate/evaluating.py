"""A whole evaluation, from the name of the data set to the figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from landseer.client.commands.connection import PATIENCE
from landseer.client.credentials import PLAIN, Credentials
from landseer.ensemble.inference.contracts import Sizes
from landseer.ops.errors import OpsError
from landseer.ops.evaluate import plots
from landseer.ops.evaluate.beside_sift import BesideSift
from landseer.ops.evaluate.codebooks import CodebookSource
from landseer.ops.evaluate.dataset import Dataset
from landseer.ops.evaluate.exported_models import ExportRequest, exported
from landseer.ops.evaluate.html_report import write_report
from landseer.ops.evaluate.in_process import InProcessSystem
from landseer.ops.evaluate.judging import EvaluationPlan, judge
from landseer.ops.evaluate.methods import NO_EXPANSION, SIFT
from landseer.ops.evaluate.needs import WORDY, needed
from landseer.ops.evaluate.notation import parse_all
from landseer.ops.evaluate.readers import pictures_in, read
from landseer.ops.evaluate.regions import Boxes
from landseer.ops.evaluate.results import Results
from landseer.ops.evaluate.served import ServedSystem
from landseer.ops.evaluate.sift_system import SiftSystem
from landseer.ops.evaluate.specs import METHODS, REGIONS, SERVED_METHODS
from landseer.ops.evaluate.sweep import counts
from landseer.ops.evaluate.system import System
from landseer.ops.files import check_writable
from landseer.ops.progress import warn

REPOSITORY = Path("model_repository")


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """The options of `landseer evaluate`."""

    data: str
    methods: str | None
    """None for the default rows."""
    queries: int | None
    distractors: str | None
    repository: Path | None
    backbones: Sequence[ExportRequest]
    server: str | None
    cache: Path
    seed: int
    sweep: str | None
    json: Path | None
    report: Path | None
    turn: int = 0
    """Degrees by which queries are turned."""
    codebook: Path | None = None
    codebook_from: str | None = None
    regions: int = REGIONS
    patience: float = PATIENCE
    """Seconds to wait for a service that is still loading."""
    credentials: Credentials = PLAIN
    """For `server`."""


def run(options: EvaluationOptions, console: Console) -> Results:
    """Evaluate, print the tables, write the files. OpsError says what is wrong and how to fix it."""
    _check(options)
    # Quick checks first: exports and descriptions take minutes.
    given = _given(options)
    dataset = _dataset(options)
    systems = given or _made(options, console)
    plan = _plan(options, positions=_positions(systems))
    _check_served(systems, plan)
    systems = _with_baseline(options, systems, plan)
    dataset = _prepared(dataset, systems, plan, console)
    found = [judge(system, dataset, plan, console) for system in systems]
    results = Results(
        dataset=dataset,
        systems=[system.about for system in systems],
        rows=[row for one in found for row in one.rows],
        points=[point for one in found for point in one.points],
        seed=options.seed,
    )
    _tell(results, options, console)
    return results


def _plan(options: EvaluationOptions, *, positions: int) -> EvaluationPlan:
    methods = parse_all(_methods(options), positions=positions)
    return EvaluationPlan(
        methods=methods,
        base=None if _baseline_alone(options) else NO_EXPANSION,
        neighbours=counts(options.sweep) if options.sweep is not None else (),
        positions=positions,
        seed=options.seed,
        failures=options.report is not None,
    )


def _methods(options: EvaluationOptions) -> str:
    if options.methods is not None:
        return options.methods
    return SERVED_METHODS if options.server else METHODS


def _baseline_alone(options: EvaluationOptions) -> bool:
    """Return whether nothing is evaluated but the baseline, which needs neither models nor a service."""
    named = options.repository or options.backbones or options.server
    return not named and all(one.strip() == SIFT for one in _methods(options).split(","))


def _check(options: EvaluationOptions) -> None:
    """Raise OpsError now for what would otherwise fail after hours of work."""
    named = [
        name
        for name, given in (
            ("--repository", options.repository),
            ("--backbone", options.backbones),
            ("--server", options.server),
        )
        if given
    ]
    if len(named) > 1:
        raise OpsError(f"{named[0]} and {named[1]} both name what is evaluated; give one of them")
    if options.server and (options.distractors or "").isdigit():
        raise OpsError(
            f"--distractors {options.distractors} makes vectors, but a service takes pictures; name a folder"
        )
    plan = _plan(options, positions=Sizes(channels=1).neighbours)
    _check_local(options, plan)
    for request in options.backbones:
        request.check()
    check_writable(options.json, "--json")
    if options.report is not None:
        plots.check_installed("--report")
        _make(options.report)


def _check_local(options: EvaluationOptions, plan: EvaluationPlan) -> None:
    """Raise OpsError for rows that need local features or visual words which are not available."""
    if options.codebook is not None and options.codebook_from is not None:
        raise OpsError("--codebook and --codebook-from both name the visual words; give one of them")
    pictured = needed(plan.methods) or any(method.name == SIFT for method in plan.methods)
    if pictured and (options.distractors or "").isdigit():
        raise OpsError(
            f"--distractors {options.distractors} makes vectors, which have no local features to rank by; name "
            "a folder of pictures, or omit the rows that rank by local features"
        )
    # A service has words of its own.
    wordy = [method for method in plan.methods if method.name in WORDY and not options.server]
    if wordy and options.codebook is None and options.codebook_from is None:
        raise OpsError(
            f"{wordy[0]} ranks by visual words: name a codebook with --codebook FILE, or another data set to learn "
            "one from with --codebook-from DATA"
        )


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OpsError(f"cannot make the folder --report {folder}: {error.strerror}; name another") from error


def _given(options: EvaluationOptions) -> list[System]:
    """Return the system that already exists; none for backbones, which must be exported first."""
    if options.backbones:
        return []
    if _baseline_alone(options):
        return [SiftSystem(options.cache)]
    if options.server:
        return [ServedSystem(options.server, patience=options.patience, credentials=options.credentials)]
    return [_local(options, options.repository or REPOSITORY)]


def _local(options: EvaluationOptions, repository: Path, label: str | None = None) -> InProcessSystem:
    return InProcessSystem(
        repository,
        cache=options.cache,
        seed=options.seed,
        label=label,
        words=CodebookSource(file=options.codebook, learned_from=options.codebook_from, seed=options.seed),
        boxes=Boxes(most=options.regions),
    )


def _check_served(systems: Sequence[System], plan: EvaluationPlan) -> None:
    """Raise OpsError, before anything is indexed, for a method that the service does not have."""
    for system in systems:
        if isinstance(system, ServedSystem):
            system.check([method for method in plan.methods if method.name != SIFT])


def _with_baseline(options: EvaluationOptions, systems: list[System], plan: EvaluationPlan) -> list[System]:
    """Return the systems, each with the baseline beside it if that is one of the rows."""
    if plan.base is None or all(method.name != SIFT for method in plan.methods):
        return systems
    sift = SiftSystem(options.cache)
    return [BesideSift(system, sift) for system in systems]


def _made(options: EvaluationOptions, console: Console) -> list[System]:
    """Return a system for each backbone; exports those that do not exist."""
    made: dict[str, System] = {}
    for request in dict.fromkeys(options.backbones):
        folder, label = exported(request, console), request.label
        system = _local(options, folder, label)
        if system.about.name in made:
            # Two exports have the same label, such as files with the same name: add the key of the export.
            system = _local(options, folder, f"{label} {folder.name[-6:]}")
        made[system.about.name] = system
    return list(made.values())


def _positions(systems: Sequence[System]) -> int:
    """Return how many neighbours LAttQE takes in every system; a service rejects more than it takes."""
    known = [system.profile.sizes.neighbours for system in systems if isinstance(system, InProcessSystem)]
    return min(known, default=Sizes(channels=1).neighbours)


def _dataset(options: EvaluationOptions) -> Dataset:
    dataset = read(options.data).sampled(options.queries, options.seed).turned(options.turn)
    more = options.distractors
    if more is None:
        return dataset
    if not more.isdigit():
        return dataset.with_distractors(pictures_in(Path(more)))
    if not int(more):
        raise OpsError("--distractors is 0; expected a folder of pictures, or the number of vectors to make")
    return dataset.with_synthetic(int(more))


def _prepared(dataset: Dataset, systems: Sequence[System], plan: EvaluationPlan, console: Console) -> Dataset:
    """Return the data set without pictures that any system cannot read, so that all rank the same pictures."""
    unreadable: dict[Path, str] = {}
    for system in systems:
        unreadable |= system.prepare(dataset, plan.asked, console)
    warn((f"{path}: {why}" for path, why in sorted(unreadable.items())), console)
    dataset = dataset.without(unreadable)
    if not any(len(truth.easy) + len(truth.hard) for truth in dataset.truths()):
        raise OpsError(f"{dataset.name}: no query has a right answer among the readable pictures")
    return dataset


def _tell(results: Results, options: EvaluationOptions, console: Console) -> None:
    results.print()
    for about in results.systems:
        if untrained := results.untrained(about):
            told = f"{about.name}, never trained: {', '.join(untrained)}"
            console.print(told, style="yellow", markup=False, highlight=False, soft_wrap=True)
    if options.json is not None:
        results.write(options.json)
    if options.report is not None:
        console.print(f"wrote {write_report(results, options.report)}", markup=False, highlight=False, soft_wrap=True)
