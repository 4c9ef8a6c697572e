import numpy as np
import pytest
from shared_files import reference

from landseer.export.training.whitening import learned_whitening, pairs_within, pca_whitening


def gram(rows: np.ndarray) -> np.ndarray:
    return rows @ rows.T


@pytest.mark.parametrize(("dims", "key"), [(None, "Lw_Y_gram"), (10, "Lw_Y_dim10_gram")])
def test_learned_whitening_equals_the_authors(dims: int | None, key: str) -> None:
    known = reference("whitening.npz")
    made = learned_whitening(known["X"].T, known["qidxs"], known["pidxs"], dims=dims)
    # The signs of eigenvectors are arbitrary.
    np.testing.assert_allclose(gram(made(known["Y"].T)), known[key], atol=1e-5)
    np.testing.assert_allclose(made.mean, known["Lw_m"][:, 0], atol=1e-5)


@pytest.mark.parametrize(("power", "dims", "key"), [(1.0, None, "how_Y_s1"), (0.5, 8, "how_Y_s05_dim8")])
def test_pca_whitening_equals_the_public_code(power: float, dims: int | None, key: str) -> None:
    known = reference("whitening.npz")
    made = pca_whitening(known["X"].T, power=power, dims=dims)
    np.testing.assert_allclose(gram(made(known["Y"].T)), gram(known[key]), atol=1e-5)
    if power == 1.0:
        np.testing.assert_allclose(gram(made(known["Y"].T)), known["pca_Y_gram"], atol=1e-5)


def test_fewer_pairs_than_dimensions_still_have_a_whitening() -> None:
    x = np.random.default_rng(0).normal(size=(10, 32))
    made = learned_whitening(x, np.arange(5), np.arange(5, 10))
    assert np.isfinite(made(x)).all()
    np.testing.assert_allclose(np.linalg.norm(made(x), axis=1), 1, atol=1e-4)


def test_shrinkage_ends_at_pca() -> None:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(200, 6)) * np.arange(1, 7)
    q, p = np.arange(100), np.arange(100, 200)
    far = learned_whitening(x, q, p, shrinkage=1e9)
    centred = x - far.mean
    _, axes = np.linalg.eigh(centred.T @ centred)
    np.testing.assert_allclose(
        np.abs(far.matrix / np.linalg.norm(far.matrix, axis=1)[:, None]), np.abs(axes.T[::-1]), atol=1e-4
    )


def test_pairs_match_and_repeat_by_seed() -> None:
    labels = np.repeat(np.arange(7), 5)
    q, p = pairs_within(labels, most=2, seed=3)
    assert (labels[q] == labels[p]).all() and (q != p).all() and len(q) == 70
    again = pairs_within(labels, most=2, seed=3)
    assert np.array_equal(p, again[1])


@pytest.mark.parametrize("x", [np.zeros((1, 4)), np.zeros(4), np.full((3, 2), np.nan)])
def test_what_is_no_set_of_descriptors_is_refused(x: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected two or more finite rows"):
        pca_whitening(x)
