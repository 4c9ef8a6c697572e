from __future__ import annotations

import numpy as np
import pytest

from landseer.ops.backend.engines import ENGINES
from landseer.ops.backend.model_settings import ModelSettings
from landseer.ops.backend.runner import Job, RequestFailure, Runner

BOTH = frozenset({"descriptor", "stripes"})
DESCRIPTOR = frozenset({"descriptor"})
STRIPES = frozenset({"stripes"})


@pytest.fixture(params=sorted(ENGINES))
def settings(request, tiny_onnx):
    return ModelSettings(path=tiny_onnx, engine=request.param, inputs=("image",), outputs=("descriptor", "stripes"))


@pytest.fixture
def runner(settings):
    runner = Runner(settings)
    yield runner
    runner.close()


def job(image, outputs=BOTH):
    return Job(inputs={"image": image}, outputs=outputs)


def check(answer, expected, outputs=BOTH):
    assert not isinstance(answer, RequestFailure), answer
    assert set(answer) == outputs
    for name in outputs:
        np.testing.assert_allclose(answer[name], expected[name], rtol=1e-4, atol=1e-4)


def test_equal_shapes_share_one_inference(runner, picture, reference):
    images = [picture(32, 24, batch) for batch in (1, 2, 1)]
    answers = runner.run([job(image) for image in images])
    assert runner.inferences == 1
    for answer, image in zip(answers, images, strict=True):
        check(answer, reference(image))


def test_unequal_shapes_are_answered_in_order(runner, picture, reference):
    images = [picture(32, 24), picture(24, 32), picture(32, 24), picture(16, 16)]
    answers = runner.run([job(image) for image in images])
    assert runner.inferences == 3
    for answer, image in zip(answers, images, strict=True):
        check(answer, reference(image))


def test_each_gets_only_what_it_asked_for(runner, picture, reference):
    images = [picture(32, 24) for _ in range(3)]
    wanted = [DESCRIPTOR, STRIPES, BOTH]
    for answer, image, outputs in zip(
        runner.run([job(*pair) for pair in zip(images, wanted, strict=True)]), images, wanted, strict=True
    ):
        check(answer, reference(image), outputs)


def test_an_output_nobody_asked_for_is_not_computed(runner, picture, reference):
    # `stripes` throws at this width. Where it is not computed, it cannot.
    image = picture(32, 20)
    [answer] = runner.run([job(image, DESCRIPTOR)])
    assert set(answer) == {"descriptor"}
    assert isinstance(runner.run([job(image)])[0], RequestFailure)


def test_a_failing_first_shape_spoils_neither_its_neighbours_nor_the_next(runner, picture, reference):
    good, bad = picture(32, 24), picture(32, 20)
    answers = runner.run([job(good), job(bad), job(good)])
    check(answers[0], reference(good))
    check(answers[2], reference(good))
    assert isinstance(answers[1], RequestFailure)
    assert answers[1].kind == "internal"
    assert "image [1, 32, 20, 3]" in answers[1].message
    for _ in range(20):
        image = picture(40, 48)
        check(runner.run([job(image)])[0], reference(image))


def test_out_of_bounds_never_reaches_the_engine(settings, picture):
    import dataclasses

    runner = Runner(dataclasses.replace(settings, bounds={"image": ((16, 64), (16, 64), (3, 3))}))
    refused, answered = runner.run([job(picture(32, 20_0)), job(picture(32, 24))])
    assert refused.kind == "invalid"
    assert refused.message == ("input 'image' has shape [32, 200, 3] after the batch; expected [16 to 64, 16 to 64, 3]")
    assert set(answered) == BOTH
    assert runner.inferences == 1
    runner.close()


PICTURES = {"image": ((16, 256), (16, 256), (3, 3))}


@pytest.mark.parametrize(("threads", "sizes"), [(1, [1, 1, 1]), (2, [1, 1, 1]), (4, [2, 1]), (8, [3])])
def test_pictures_share_an_inference_where_there_are_threads_for_them(
    settings, picture, reference, monkeypatch, threads, sizes
):
    """Each takes memory, and on two threads a batch saves no time."""
    import dataclasses

    runner = Runner(dataclasses.replace(settings, bounds=PICTURES, threads=threads))
    ran, infer = [], runner._engine.infer
    monkeypatch.setattr(runner._engine, "infer", lambda inputs, outputs: ran.append(inputs) or infer(inputs, outputs))
    images = [picture(32, 24) for _ in range(3)]
    for answer, image in zip(runner.run([job(image) for image in images]), images, strict=True):
        check(answer, reference(image))
    assert [len(inputs["image"]) for inputs in ran] == sizes
    # One request of several pictures is cut, and put together again.
    whole = picture(32, 24, 3)
    check(runner.run([job(whole)])[0], reference(whole))
    assert [len(inputs["image"]) for inputs in ran] == sizes * 2
    runner.close()


def test_whether_each_picture_is_still_wanted_is_asked_just_before_it(settings, picture):
    import dataclasses

    runner = Runner(dataclasses.replace(settings, bounds=PICTURES))
    late, image = RequestFailure(message="late", kind="late"), picture(32, 24)
    second = Job(inputs={"image": image}, outputs=BOTH, refused=lambda: late if runner.inferences else None)
    assert runner.run([job(image), second])[1] == late
    runner.close()


def test_sets_of_outputs_of_pictures_share_a_graph_with_openvino(settings, picture, reference):
    """Each graph would take 0.5 GB; ONNX Runtime's do not."""
    import dataclasses

    runner = Runner(dataclasses.replace(settings, bounds=PICTURES, prepared=(DESCRIPTOR,)))
    for size in (24, 40, 24):
        image = picture(32, size)
        for outputs in (BOTH, DESCRIPTOR, STRIPES):
            check(runner.run([job(image, outputs)])[0], reference(image), outputs)
    assert len(runner._engine._variants) == (1 if settings.engine == "openvino" else 3)
    runner.close()


def test_a_refused_job_needs_no_inference(runner, picture):
    late = RequestFailure(message="late", kind="late")
    assert runner.run([Job(inputs={"image": picture(8, 8)}, outputs=BOTH, refused=lambda: late)]) == [late]
    assert runner.inferences == 0


def test_answers_come_as_they_are_done(runner, picture, reference):
    images = [picture(32, 24), picture(24, 32), picture(32, 24)]
    answers = runner.answers([job(image) for image in images])
    for done, expected in ((1, 0), (1, 2), (2, 1)):
        place, answer = next(answers)
        assert (runner.inferences, place) == (done, expected)
        check(answer, reference(images[place]))
    assert next(answers, None) is None


def test_whether_a_job_is_still_wanted_is_asked_when_its_turn_comes(runner, picture):
    late = RequestFailure(message="late", kind="late")
    first = job(picture(32, 24))
    second = Job(inputs={"image": picture(24, 32)}, outputs=BOTH, refused=lambda: late if runner.inferences else None)
    assert runner.run([first, second])[1] == late
    assert runner.inferences == 1


def test_without_batching_nothing_is_joined(settings, picture, reference):
    import dataclasses

    runner = Runner(dataclasses.replace(settings, batching=False))
    images = [picture(32, 24, 2), picture(32, 24, 2)]
    for answer, image in zip(runner.run([job(image) for image in images]), images, strict=True):
        check(answer, reference(image))
    assert runner.inferences == 2
    runner.close()


def test_declared_tensors_must_exist(settings):
    import dataclasses

    with pytest.raises(ValueError, match="no output 'boxes'; its outputs are descriptor, stripes"):
        Runner(dataclasses.replace(settings, outputs=("boxes",)))
    with pytest.raises(ValueError, match="no input 'picture'"):
        Runner(dataclasses.replace(settings, inputs=("picture",)))


def test_a_missing_file_says_how_to_make_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model.onnx does not exist; run: python export/all.py"):
        Runner(ModelSettings(path=tmp_path / "model.onnx"))


def test_the_prepared_outputs_are_warmed_up_at_load(settings):
    import dataclasses

    class Noting:
        precision, inputs, outputs = "fp32", frozenset({"image"}), BOTH

        def __init__(self, settings):
            self.ran = []

        def prepare(self, outputs):
            pass

        def infer(self, inputs, outputs):
            self.ran.append((inputs["image"].dtype, inputs["image"].shape, outputs))
            return {name: np.zeros((len(inputs["image"]), 8)) for name in outputs}

    shapes = ((1, 32, 24, 3), (2, 16, 16, 3))
    asked = dataclasses.replace(
        settings, prepared=(DESCRIPTOR, BOTH), warm_up=tuple({"image": ("uint8", shape)} for shape in shapes)
    )
    runner = Runner(asked, make=Noting)
    # Triton's own warm-up asks for all outputs: those are left to it.
    assert runner._engine.ran == [(np.dtype("uint8"), shape, DESCRIPTOR) for shape in shapes]


def test_a_warm_up_that_fails_is_a_reason_not_to_serve(settings):
    import dataclasses

    # `stripes` throws at this width.
    bad = dataclasses.replace(settings, prepared=(STRIPES,), warm_up=({"image": ("uint8", (1, 32, 20, 3))},))
    with pytest.raises(ValueError, match=r"the warm-up failed: inference failed for image \[1, 32, 20, 3\]"):
        Runner(bad)


def test_closed_and_used_again(runner, picture, reference):
    image = picture(16, 16)
    runner.close()
    check(runner.run([job(image)])[0], reference(image))


@pytest.mark.parametrize("name", sorted(ENGINES))
def test_engines_compile_a_bounded_number_of_variants(name, tiny_onnx, picture, reference):
    engine = ENGINES[name](ModelSettings(path=tiny_onnx, outputs=("descriptor", "stripes")))
    engine._variants._most = 2
    engine.prepare(BOTH)
    image = picture(16, 16)
    for outputs in (DESCRIPTOR, STRIPES, BOTH, STRIPES):
        check(engine.infer({"image": image}, outputs), reference(image), outputs)
    assert len(engine._variants) == 2


def test_bf16_only_where_the_cpu_has_it(tiny_onnx):
    import openvino as ov

    has_it = "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    runner = Runner(ModelSettings(path=tiny_onnx, engine="openvino", precision="bf16", outputs=("descriptor",)))
    assert runner.precision == ("bf16" if has_it else "fp32")
    assert Runner(ModelSettings(path=tiny_onnx, precision="bf16")).precision == "fp32"
    runner.close()


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "bool", "float16", "float32"])
@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_every_dtype_goes_in_and_out(dtype, engine, tmp_path):
    import onnx
    from onnx import helper

    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    shape = ["B", "N"]
    graph = helper.make_graph(
        [helper.make_node("Concat", ["x", "x"], ["y"], axis=1)],
        "twice",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, ["B", "M"])],
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    runner = Runner(ModelSettings(path=path, engine=engine, inputs=("x",), outputs=("y",)))
    value = np.array([[0, 1, 1]]).astype(dtype)
    [answer] = runner.run([Job(inputs={"x": value}, outputs=frozenset({"y"}))])
    assert answer["y"].dtype == value.dtype
    np.testing.assert_array_equal(answer["y"], np.concatenate([value, value], axis=1))
    runner.close()
