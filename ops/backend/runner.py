"""Answers a list of requests with as few inferences as their shapes allow.

This is the logic of our onnxruntime backend for Triton (backends/onnxruntime/model.py), independent of Triton.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from landseer.ops.backend.engines import ENGINES, Array, LoadedGraph, batched, copied
from landseer.ops.backend.model_settings import Bounds, ModelSettings, WarmUp

Outputs = dict[str, Array]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One request: its tensors, and the outputs that it wants."""

    inputs: Mapping[str, Array]
    outputs: frozenset[str]
    refused: Callable[[], RequestFailure | None] = lambda: None
    """Returns a failure if no inference is needed any more; called just before the job's inference."""


@dataclass(frozen=True, kw_only=True)
class RequestFailure:
    """Why a request has no answer."""

    message: str
    kind: Literal["invalid", "internal", "late", "cancelled"]
    """The cause: the request, the inference, a passed deadline, or the caller."""


class Runner:
    """A loaded model. For one thread."""

    def __init__(self, settings: ModelSettings, *, make: Callable[[ModelSettings], LoadedGraph] | None = None) -> None:
        if not settings.path.exists():
            raise FileNotFoundError(f"{settings.path} does not exist; run: python export/all.py")
        self.settings = settings
        self._make = make or ENGINES[settings.engine]
        self._engine: LoadedGraph | None = None
        self.inferences = 0
        """Number of inferences that the engine was asked for."""
        self.precision = self._prepared().precision
        self._warm_up()

    def run(self, jobs: Sequence[Job]) -> list[Outputs | RequestFailure]:
        """Answer every job, in order."""
        kept = {
            place: answer if isinstance(answer, RequestFailure) else copied(answer)
            for place, answer in self.answers(jobs)
        }
        return [kept[place] for place in range(len(jobs))]

    def answers(self, jobs: Sequence[Job]) -> Iterator[tuple[int, Outputs | RequestFailure]]:
        """Yield each job's place and answer as soon as it is known.

        Jobs of equal shapes share inferences, of at most `settings.most` rows; a failure affects no other group. The
        arrays are valid only until the next step.
        """
        groups: dict[object, list[int]] = {}
        for place, job in enumerate(jobs):
            groups.setdefault(self._key(place, job), []).append(place)
        for places in groups.values():
            for some in self._parts(jobs, places):
                yield from self._answered({place: jobs[place] for place in some})

    def close(self) -> None:
        """Free the model. The next run loads it again."""
        self._engine = None

    def _parts(self, jobs: Sequence[Job], places: Sequence[int]) -> Iterator[list[int]]:
        """Yield the places of jobs that share an inference; one that has too many rows is alone."""
        part, rows = list[int](), 0
        for place in places:
            more = _rows(jobs[place])
            if part and rows + more > self.settings.most:
                yield part
                part, rows = [], 0
            part.append(place)
            rows += more
        yield part

    def _answered(self, group: Mapping[int, Job]) -> Iterator[tuple[int, Outputs | RequestFailure]]:
        wanted = dict(group)
        for place, job in group.items():
            if failure := job.refused() or self._invalid(job):
                del wanted[place]
                yield place, failure
        if wanted:
            yield from zip(wanted, self._group(list(wanted.values())), strict=True)

    def _invalid(self, job: Job) -> RequestFailure | None:
        complaint = out_of_bounds(job.inputs, self.settings.bounds, batching=self.settings.batching)
        return None if complaint is None else RequestFailure(message=complaint, kind="invalid")

    def _key(self, index: int, job: Job) -> object:
        if not self.settings.batching:
            return index
        return tuple(sorted((name, value.dtype.str, value.shape[1:]) for name, value in job.inputs.items()))

    def _group(self, jobs: Sequence[Job]) -> Sequence[Outputs | RequestFailure]:
        try:
            return self._infer(jobs)
        except Exception as error:  # whatever the graph throws fails these requests, not the server
            self.close()
            return [RequestFailure(message=_describe(error, jobs[0]), kind="internal")] * len(jobs)

    def _infer(self, jobs: Sequence[Job]) -> Sequence[Outputs]:
        wanted = frozenset[str]().union(*(job.outputs for job in jobs))
        inputs = {name: batched([job.inputs[name] for job in jobs]) for name in jobs[0].inputs}
        if not self.settings.batching:
            return [self._engine_infers(inputs, wanted)]
        most, rows = self.settings.most, sum(_rows(job) for job in jobs)
        if rows <= most:
            return _split(self._engine_infers(inputs, wanted), jobs)
        slices = ({name: value[at : at + most] for name, value in inputs.items()} for at in range(0, rows, most))
        parts = [copied(self._engine_infers(some, wanted)) for some in slices]
        return _split({name: np.concatenate([part[name] for part in parts]) for name in wanted}, jobs)

    def _engine_infers(self, inputs: Mapping[str, Array], wanted: frozenset[str]) -> Outputs:
        engine = self._ready()
        self.inferences += 1
        return engine.infer(inputs, wanted)

    def _prepared(self) -> LoadedGraph:
        """Check the graph against its configuration, and compile the sets of outputs that will be requested."""
        engine = self._ready()
        check_names("input", self.settings.inputs, engine.inputs)
        for outputs in (frozenset(self.settings.outputs) or engine.outputs, *self.settings.prepared):
            check_names("output", outputs, engine.outputs)
            engine.prepare(outputs)
        return engine

    def _warm_up(self) -> None:
        """Run the prepared outputs on the shapes of Triton's warm-up, which itself requests only all outputs.

        Each set of outputs is a separate graph, whose first run of a shape takes up to twice as long as the next.
        """
        if self.settings.one_graph:
            return
        everything = frozenset(self.settings.outputs)
        for request in self.settings.warm_up:
            for outputs in set(self.settings.prepared) - {everything}:
                [answer] = self.run([Job(inputs=made_up(request), outputs=outputs)])
                if isinstance(answer, RequestFailure):
                    raise ValueError(f"the warm-up failed: {answer.message}")

    def _ready(self) -> LoadedGraph:
        if self._engine is None:
            self._engine = self._make(self.settings)
        return self._engine


def made_up(request: WarmUp) -> dict[str, Array]:
    """Return tensors of those types and shapes, filled with seeded whole numbers from 0 to 255."""
    rng = np.random.default_rng(0)
    return {name: rng.integers(0, 256, shape).astype(dtype) for name, (dtype, shape) in request.items()}


def check_names(kind: str, declared: Iterable[str], known: frozenset[str]) -> None:
    """Raise a ValueError if the configuration declares a tensor that the graph does not have."""
    if unknown := sorted(set(declared) - known):
        raise ValueError(f"the graph has no {kind} '{unknown[0]}'; its {kind}s are {', '.join(sorted(known))}")


def out_of_bounds(inputs: Mapping[str, Array], bounds: Bounds, *, batching: bool) -> str | None:
    """Return an error, with the actual and the expected shape, if a shape is out of bounds; else None."""
    for name, axes in bounds.items():
        if name not in inputs:
            continue
        shape = inputs[name].shape[1:] if batching else inputs[name].shape
        fits = len(shape) == len(axes) and all(low <= n <= high for n, (low, high) in zip(shape, axes, strict=True))
        if not fits:
            expected = ", ".join(str(low) if low == high else f"{low} to {high}" for low, high in axes)
            batch = " after the batch" if batching else ""
            return f"input '{name}' has shape {list(shape)}{batch}; expected [{expected}]"
    return None


def _rows(job: Job) -> int:
    first = next(iter(job.inputs.values()))
    return first.shape[0] if first.ndim else 1


def _split(results: Mapping[str, Array], jobs: Sequence[Job]) -> Sequence[Outputs]:
    sizes = [_rows(job) for job in jobs]
    for name, value in results.items():
        if value.ndim == 0 or value.shape[0] != sum(sizes):
            raise ValueError(f"output '{name}' has shape {list(value.shape)}; expected a batch of {sum(sizes)}")
    answers = []
    start = 0
    for job, size in zip(jobs, sizes, strict=True):
        answers.append({name: results[name][start : start + size] for name in job.outputs})
        start += size
    return answers


def _describe(error: Exception, job: Job) -> str:
    shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in sorted(job.inputs.items()))
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"inference failed for {shapes}: {lines[-1] if lines else type(error).__name__}"
