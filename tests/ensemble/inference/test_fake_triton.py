"""The stand-in meets the same contracts as the real models."""

import fake_triton
import numpy as np
from fake_triton import SIZES

from landseer.ensemble.inference.contracts import IMAGE, ensembles, graphs

OUTPUTS = {tensor.name: tensor for graph in graphs(SIZES).values() for tensor in graph.outputs}
IMAGES = np.random.default_rng(0).integers(0, 256, (1, 96, 128, 3), dtype=np.uint8)


def test_outputs_have_the_types_and_shapes_of_the_contracts():
    made = fake_triton._describe_full({IMAGE.name: IMAGES}, SIZES)
    # Nobody asks a Triton for whole local features.
    assert set(ensembles()["describe_full"].outputs) - set(made) == {"local_features"}
    for name, found in made.items():
        dims = OUTPUTS[name].dims
        assert found.dtype == np.dtype(OUTPUTS[name].dtype), name
        assert found.shape[0] == 1 and len(found.shape) == len(dims) + 1, name
        assert all(want in (-1, got) for want, got in zip(dims, found.shape[1:], strict=True)), name


def test_local_descriptors_have_unit_norm_and_follow_the_content():
    made = fake_triton._describe_full({IMAGE.name: IMAGES}, SIZES)
    count, rows = made["local_count"].item(), made["local_descriptors"][0].astype(np.float32)
    np.testing.assert_allclose(np.linalg.norm(rows[:count], axis=1), 1.0, atol=2e-3)
    assert not rows[count:].any() and not made["local_positions"][0, count:].any()
    darker = fake_triton._describe_full({IMAGE.name: (IMAGES * 0.9).astype(np.uint8)}, SIZES)
    cosines = rows[:count] @ darker["local_descriptors"][0, :count].astype(np.float32).T
    assert (cosines.argmax(axis=1) == np.arange(count)).all()
