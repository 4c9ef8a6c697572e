"""What is decided without TensorRT: the adapted graph, precision by layer, profiles, configurations."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2 as pb

from landseer.ensemble.inference.contracts import MAX_SIDE, MIN_SIDE, Graph, Sizes, Tensor, graphs
from landseer.ensemble.inference.profile import Profile as Served
from landseer.export.config import graph_config
from landseer.export.examples import Case, cases
from landseer.export.models.lattqe import LAttQE
from landseer.export.tensorrt.adapted import GraphError, adapted
from landseer.export.tensorrt.engine_config import engine_text
from landseer.export.tensorrt.plan import plan
from landseer.export.tensorrt.precision import choose
from landseer.export.tensorrt.profiles import ProfileError, Span, nearest, profiles, usual_lengths
from landseer.export.tensorrt.rounding import rounded
from landseer.export.tensorrt.sizes import MEASURED, PictureSizes, SizesError, read_sizes
from landseer.export.tensorrt.support import gaps
from landseer.export.to_onnx import write_onnx

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "tensorrt"
SIZES = Sizes(channels=1280)
SERVED = Served(backbone="efficientnet_lite0", weights_sha256="0" * 64, sizes=SIZES)
SMALL = Sizes(channels=64, neighbours=8)


def parsed(text: str) -> Any:
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 18]> {text}')
    return onnx.shape_inference.infer_shapes(model)


def run(model: Any, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, inputs)


PICTURE = """agraph (uint8[B,H,W,3] image)
    => (float[B,3,H,W] pixels, int64[B,H] places, int64[1] width, bool[B,H] alike) {
    turned = Transpose <perm = [0, 3, 1, 2]> (image)
    shape = Shape <start = 2, end = 3> (image)
    width = Identity (shape)
    pixels = Cast <to = 1> (turned)
    axes = Constant <value = int64[2] {1, 3}> ()
    small = ReduceMax <keepdims = 0> (pixels, axes)
    whole = Cast <to = 7> (small)
    zero = Constant <value = int64 {0}> ()
    summed = CumSum (whole, zero)
    low = Constant <value = int64 {3}> ()
    high = Constant <value = int64 {200}> ()
    places = Clip (summed, low, high)
    below = Less (whole, high)
    above = Greater (summed, high)
    alike = Equal (below, above)
}"""


def test_an_adapted_graph_says_exactly_the_same() -> None:
    model = parsed(PICTURE)
    assert gaps(model)
    changed = adapted(model)
    onnx.checker.check_model(changed)
    assert gaps(changed) == ()
    image = np.random.default_rng(0).integers(0, 256, (3, 5, 7, 3), dtype=np.uint8)
    for before, after in zip(run(model, {"image": image}), run(changed, {"image": image}), strict=True):
        assert before.dtype == after.dtype
        np.testing.assert_array_equal(before, after)


def test_arithmetic_on_uint8_has_no_equal() -> None:
    model = parsed("agraph (uint8[B,4] image) => (uint8[B,4] y) { y = Max (image, image) }")
    with pytest.raises(GraphError, match=r"Max .* computes with the uint8 input 'image'.*cast it to float32"):
        adapted(model)


def test_nodes_get_names_of_their_own() -> None:
    model = parsed("agraph (float[B,4] x) => (float[B,4] y) { a = Relu (x) y = Relu (a) }")
    names = [node.name for node in adapted(model).graph.node]
    assert all(names)
    assert len(set(names)) == len(names)


def test_gaps_are_named() -> None:
    unknown = parsed("agraph (float[B,4] x) => (float[B,4] y) { y = Det (x) }")
    assert gaps(unknown) == ("Det of float32",)
    deep = parsed("agraph (float[9999] x, int64[1] k) => (float[K] y, int64[K] i) { y, i = TopK (x, k) }")
    assert "whose k is not a constant below 3840" in gaps(deep)[0]


# Precision.


@pytest.fixture(scope="module")
def lattqe(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, list[Case]]:
    """LAttQE as the exporter writes it, small, and inputs for it."""
    module, graph = LAttQE.untrained(SMALL, seed=0), graphs(SMALL)["lattqe"]
    rng = np.random.default_rng(0)
    query, near = rng.standard_normal((2, 64)), rng.standard_normal((2, 8, 64))
    near += 2.0 * query[:, None]
    inputs: Any = {
        "query": (query / np.linalg.norm(query, axis=-1, keepdims=True)).astype(np.float32),
        "neighbours": (near / np.linalg.norm(near, axis=-1, keepdims=True)).astype(np.float32),
        "neighbour_mask": np.arange(8)[None] < np.array([[8], [3]]),
    }
    path = tmp_path_factory.mktemp("lattqe") / "model.onnx"
    write_onnx(module, graph, inputs, path, opset=18)
    return adapted(onnx.load(path)), [Case(name="two", inputs=inputs, real=False)]


def ops(model: Any, names: frozenset[str]) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node if node.name in names)


def test_lattqe_keeps_normalisation_softmax_and_the_mask_in_fp32(lattqe: tuple[Any, list[Case]]) -> None:
    model, _ = lattqe
    precision = choose(model)
    full, half = ops(model, precision.full), ops(model, precision.half)
    assert (full["Softmax"], full["LayerNormalization"], full["ReduceL2"]) == (3, 6, 2)
    of_layers = "q, k, v in one, scores, mixing, out, widen, narrow: of each of three layers"
    assert half["MatMul"] == 3 * 6 + 1, f"{of_layers}; and relevance"
    assert not set(half) & {"Softmax", "LayerNormalization", "ReduceL2", "Div", "Einsum", "Cast"}
    why = {choice.op: choice.why for choice in precision.choices if "1e+09" in choice.why}
    assert set(why) == {"Mul"}


def test_rounding_only_what_may_be_half_hardly_changes_lattqe(lattqe: tuple[Any, list[Case]]) -> None:
    model, [case] = lattqe
    precision = choose(model)
    exact, _, relevance = run(model, case.inputs)
    mixed, _, nearly = run(rounded(model, precision.half), case.inputs)
    assert (exact * mixed).sum(-1).min() > 0.9999
    np.testing.assert_allclose(nearly, relevance, atol=1e-3)
    # The mask's -1e9 is what breaks first: infinity times zero.
    every, *_ = run(rounded(model, precision.half | precision.full), case.inputs)
    assert not (exact * every).sum(-1).min() > 0.9999


SPELLED_OUT = """agraph (float[B,T,8] x, float[8,8] w) => (float[B,T,8] y)
<float[8] g = {1,1,1,1,1,1,1,1}, float e = {0.00001}, float two = {2.0}, int64[1] last = {-1}> {
    h = MatMul (x, w)
    m = ReduceMean (h, last)
    d = Sub (h, m)
    s = Pow (d, two)
    v = ReduceMean (s, last)
    a = Add (v, e)
    r = Sqrt (a)
    n = Div (d, r)
    z = Mul (n, g)
    o = MatMul (z, w)
    y = Relu (o)
}"""


def test_a_layer_norm_that_is_spelled_out_stays_in_fp32() -> None:
    model = adapted(parsed(SPELLED_OUT))
    half = ops(model, choose(model).half)
    assert half == {"MatMul": 2, "Relu": 1}


GEM = """agraph (float[B,3,H,W] x, float[8,3,1,1] k, float[8,8] p) => (float[B,8] y)
<float low = {0.000001}, float three = {3.0}, float third = {0.3333}, int64[2] hw = {2, 3}> {
    c = Conv (x, k)
    f = Relu (c)
    b = Clip (f, low)
    u = Pow (b, three)
    m = ReduceMean <keepdims = 0> (u, hw)
    g = Pow (m, third)
    y = MatMul (g, p)
}"""


def test_gem_and_the_projection_of_one_vector_stay_in_fp32() -> None:
    model = adapted(parsed(GEM))
    choices = choose(model)
    assert ops(model, choices.half) == {"Conv": 1, "Relu": 1}
    assert {c.op: c.why for c in choices.choices}["MatMul"].startswith("one vector per picture")


# Profiles.

SIDES = st.integers(MIN_SIDE // 32, MAX_SIDE // 32).map(lambda cells: cells * 32)
COUNTS = st.dictionaries(st.tuples(SIDES, SIDES), st.integers(1, 999), min_size=1, max_size=12)


@settings(max_examples=200, deadline=None)
@given(counts=COUNTS)
def test_profiles_of_pictures_are_legal_and_take_every_picture(counts: Any) -> None:
    made = profiles(graphs(SIZES)["backbone"], counts)
    for profile in made:
        [span] = profile.spans
        assert all(low <= mid <= high for low, mid, high in zip(span.least, span.usual, span.most, strict=True))
        assert (span.least[0], span.most[0], span.most[3]) == (1, 8, 3)
        assert span.usual[0] == 8
        assert span.usual[1:3] in counts
    [whole] = made[-1].spans
    assert (whole.least, whole.most) == ((1, MIN_SIDE, MIN_SIDE, 3), (8, MAX_SIDE, MAX_SIDE, 3))
    for height, width in counts:
        for batch in (1, 8):
            shape = {"image": (batch, height, width, 3)}
            assert made[nearest(made, shape)].holds(shape)


@pytest.mark.parametrize("name", sorted(graphs(SIZES)))
def test_every_graph_has_profiles_that_take_what_the_export_checks(name: str) -> None:
    graph = graphs(SIZES)[name]
    made = profiles(graph, usual_lengths(graph, MEASURED, SERVED))
    assert len(set(made)) == len(made)
    for profile in made:
        assert [span.name for span in profile.spans] == [tensor.name for tensor in graph.inputs]
        for span, tensor in zip(profile.spans, graph.inputs, strict=True):
            fixed = [i for i, length in enumerate(tensor.dims, start=1) if length != -1]
            assert all(span.least[i] == span.usual[i] == span.most[i] == tensor.dims[i - 1] for i in fixed)


def test_lattqes_cases_fit_its_profiles() -> None:
    class Backbone:
        def __call__(self, image: Any) -> Any:
            import torch

            return type("Description", (), {"descriptor": torch.ones(len(image), 64)})

    graph = graphs(SMALL)["lattqe"]
    made = profiles(graph, {(8,): 1})
    for case in cases("lattqe", SMALL, {"backbone": Backbone()}):  # type: ignore[dict-item]
        nearest(made, {name: array.shape for name, array in case.inputs.items()})


def test_common_shapes_get_a_profile_of_their_own() -> None:
    counts = {(640, 640): 900, (480, 640): 400, (416, 640): 100, (640, 480): 300, (64, 640): 60, (96, 64): 1}
    made = [profile.spans[0] for profile in profiles(graphs(SIZES)["backbone"], counts)]
    tuned = [(span.least[1:3], span.usual[1:3], span.most[1:3]) for span in made]
    assert tuned == [
        ((640, 640), (640, 640), (640, 640)),
        ((64, 640), (480, 640), (480, 640)),
        ((640, 480), (640, 480), (640, 480)),
        ((64, 64), (640, 640), (1600, 1600)),
    ]


def test_wide_ranges_are_cut() -> None:
    graph = graphs(SIZES)["coattention"]
    made = [profile.spans[1] for profile in profiles(graph, usual_lengths(graph, MEASURED, SERVED))]
    assert [(span.least[1], span.usual[1], span.most[1]) for span in made] == [
        (10, 50, 50),
        (100, 500, 500),
        (1, 1000, 1000),
    ]


def test_what_no_profile_can_be_made_for_is_said() -> None:
    backbone = graphs(SIZES)["backbone"]
    with pytest.raises(ProfileError, match="backbone: no length in"):
        profiles(backbone, {(10_000, 10_000): 3})
    with pytest.raises(ProfileError, match=r"got lengths \(640,\); expected one for each of 2"):
        profiles(backbone, {(640,): 3})
    with pytest.raises(ProfileError, match="not ascending"):
        Span(name="x", least=(1,), usual=(9,), most=(8,))
    free = Graph(
        name="new",
        inputs=(Tensor(name="x", dtype="float32", dims=(-1,)),),
        outputs=(),
        max_batch=1,
        half_precision=False,
    )
    with pytest.raises(ProfileError, match=r"new\.x has free axes without bounds"):
        profiles(free, {(1,): 1})
    with pytest.raises(ProfileError, match="no profile accepts"):
        nearest(profiles(backbone, {(640, 640): 3}), {"image": (9, 640, 640, 3)})


def test_the_orchestrators_rule_brings_pictures_to_their_sizes() -> None:
    sizes = PictureSizes(counts={(3000, 4000): 3, (1200, 1600): 2, (100, 10_000): 1}, source="a test")
    assert sizes.served(SERVED) == {(480, 640): 5, (64, 640): 1}


def test_picture_sizes_are_read_and_bad_lines_named(tmp_path: Path) -> None:
    path = tmp_path / "sizes.csv"
    path.write_text("height,width,count\n3024,4032,17\n3024,4032,3\n")
    assert read_sizes(path).counts == {(3024, 4032): 20}
    for text, said in (
        ("h,w\n", "starts with 'h,w'; expected the line 'height,width,count'"),
        ("height,width,count\n3,4,5\n3,x,1\n", "line 3: got '3,x,1'; expected three whole numbers from 1"),
        ("height,width,count\n3,4,0\n", "line 2"),
        ("height,width,count\n", "has no counts"),
    ):
        path.write_text(text)
        with pytest.raises(SizesError, match=said):
            read_sizes(path)
    with pytest.raises(SizesError, match="cannot read the picture sizes"):
        read_sizes(tmp_path / "none.csv")


def test_a_plan_says_what_it_is(lattqe: tuple[Any, list[Case]], tmp_path: Path) -> None:
    model, _ = lattqe
    onnx.save(model, tmp_path / "model.onnx")
    made = plan(graphs(SMALL)["lattqe"], tmp_path / "model.onnx", sizes=MEASURED, served=SERVED)
    assert made.lines()[0].startswith("lattqe: ")
    assert "layers may run in fp16" in made.lines()[0]
    assert made.lines()[1:] == ["  profile neighbours 1x1x64 to 16x8x64, tuned for 16x8x64"]


# Configurations.


@pytest.mark.parametrize("name", sorted(graphs(SIZES)))
def test_an_engines_config_declares_the_contracts_tensors(name: str) -> None:
    graph = graphs(SIZES)[name]
    text = engine_text(graph, precision="fp16", profiles=3)
    config = text_format.Parse(text, pb.ModelConfig())
    base = graph_config(graph, precision="fp16")
    assert (config.platform, config.backend, config.default_model_filename) == (
        "tensorrt_plan",
        "tensorrt",
        "model.plan",
    )
    assert (config.input, config.output, config.max_batch_size) == (base.input, base.output, base.max_batch_size)
    assert config.dynamic_batching == base.dynamic_batching
    assert [list(group.profile) for group in config.instance_group] == [["0", "1", "2"]]
    assert not config.HasField("optimization")


@pytest.mark.parametrize("name", ["backbone", "lattqe"])
def test_configs_equal_the_golden_ones(name: str) -> None:
    """To accept a change: python tests/export/test_tensorrt_plan.py."""
    assert golden(name) == (GOLDEN / f"{name}.pbtxt").read_text()


def golden(name: str) -> str:
    graph = graphs(SIZES)[name]
    made = profiles(graph, usual_lengths(graph, MEASURED, SERVED))
    return engine_text(graph, precision="fp16", profiles=len(made))


if __name__ == "__main__":
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for graph_name in ("backbone", "lattqe"):
        (GOLDEN / f"{graph_name}.pbtxt").write_text(golden(graph_name))
