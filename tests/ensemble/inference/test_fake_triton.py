"""The stand-in keeps to the contracts that the real models keep to."""

import fake_triton
import numpy as np
from fake_triton import SIZES

from landseer.ensemble.inference.contracts import IMAGE, ensembles, graphs

OUTPUTS = {tensor.name: tensor for graph in graphs(SIZES).values() for tensor in graph.outputs}
IMAGES = np.random.default_rng(0).integers(0, 256, (1, 96, 128, 3), dtype=np.uint8)


def test_what_it_describes_has_the_contracts_types_and_shapes():
    made = fake_triton._describe_full({IMAGE.name: IMAGES}, SIZES)
    # Nobody asks a Triton for whole local features.
    assert set(ensembles()["describe_full"].outputs) - set(made) == {"local_features"}
    for name, found in made.items():
        dims = OUTPUTS[name].dims
        assert found.dtype == np.dtype(OUTPUTS[name].dtype), name
        assert found.shape[0] == 1 and len(found.shape) == len(dims) + 1, name
        assert all(want in (-1, got) for want, got in zip(dims, found.shape[1:], strict=True)), name


def test_its_local_descriptors_are_unit_rows_as_many_as_it_counts_and_alike_in_like_places():
    made = fake_triton._describe_full({IMAGE.name: IMAGES}, SIZES)
    count, rows = made["local_count"].item(), made["local_descriptors"][0].astype(np.float32)
    np.testing.assert_allclose(np.linalg.norm(rows[:count], axis=1), 1.0, atol=2e-3)
    assert not rows[count:].any() and not made["local_positions"][0, count:].any()
    darker = fake_triton._describe_full({IMAGE.name: (IMAGES * 0.9).astype(np.uint8)}, SIZES)
    cosines = rows[:count] @ darker["local_descriptors"][0, :count].astype(np.float32).T
    assert (cosines.argmax(axis=1) == np.arange(count)).all()
