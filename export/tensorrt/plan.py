"""Plan the engine of a graph from its ONNX file and contract. TensorRT is not needed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from landseer.ensemble.inference.contracts import Graph
from landseer.ensemble.inference.profile import Profile as Served
from landseer.export.tensorrt.adapted import adapted
from landseer.export.tensorrt.precision import Precision, choose
from landseer.export.tensorrt.profiles import ShapeProfile, profiles, usual_lengths
from landseer.export.tensorrt.sizes import PictureSizes
from landseer.export.tensorrt.support import gaps, plugins


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The plan of one graph's engine."""

    name: str
    model: bytes
    """The adapted ONNX graph, serialised."""
    profiles: tuple[ShapeProfile, ...]
    precision: Precision | None
    """Which nodes may run in fp16; None if the contract keeps the whole graph in fp32."""
    gaps: tuple[str, ...]
    """Uses of operators that TensorRT does not document; the builder decides."""
    plugins: tuple[str, ...]
    """Operators that need TensorRT's plugin library where the engine runs."""

    def lines(self) -> list[str]:
        """Return a summary for people, in lines."""
        lines = [f"{self.name}: {self._layers()}", *(f"  profile {_shapes(profile)}" for profile in self.profiles)]
        lines += [f"  not documented for TensorRT: {gap}" for gap in self.gaps]
        return lines + [f"  needs TensorRT's plugins for {plugin}" for plugin in self.plugins]

    def _layers(self) -> str:
        if self.precision is None:
            return "fp32 throughout"
        return f"{len(self.precision.half)} layers may run in fp16, {len(self.precision.full)} stay in fp32"


def plan(graph: Graph, path: Path, *, sizes: PictureSizes, served: Served) -> Plan:
    """Plan the engine of the ONNX file at `path`. GraphError or ProfileError if that is impossible."""
    import onnx

    model = adapted(onnx.load(path))
    return Plan(
        name=graph.name,
        model=model.SerializeToString(),
        profiles=profiles(graph, usual_lengths(graph, sizes, served)),
        precision=choose(model) if graph.half_precision else None,
        gaps=gaps(model),
        plugins=plugins(model),
    )


def _shapes(profile: ShapeProfile) -> str:
    spans = [span for span in profile.spans if span.least[1:] != span.most[1:]] or profile.spans[:1]
    span = spans[0]
    least, usual, most = ("x".join(map(str, shape)) for shape in (span.least, span.usual, span.most))
    return f"{span.name} {least} to {most}, tuned for {usual}"
