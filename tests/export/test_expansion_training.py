import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from landseer.ensemble.inference.contracts import Sizes
from landseer.ensemble.search.expansion import augmentation
from landseer.export.lattqe_file import read_lattqe, write_lattqe
from landseer.export.models.fitted_curve import FittedCurve
from landseer.export.models.lattqe import ExpansionNetwork, LAttQE
from landseer.export.models.mean_lattqe import MeanLAttQE
from landseer.export.models.pooling import Projection
from landseer.export.models.relational import SURELY_OTHER, RelationalLAttQE, centred, relations
from landseer.export.models.torch_file import WeightsError
from landseer.export.training.episodes import OTHER, Episode, EpisodeRanges, Kind, Mixture, Neighbourhoods, unit
from landseer.export.training.errors import TrainingError
from landseer.export.training.expansion import (
    ExpansionRecipe,
    ExpansionTask,
    batch_of,
    contrastive,
    expand_all,
    expanded_map,
    margin_loss,
    smooth_ap,
)
from landseer.export.training.lattdba import augmented, neighbourhoods
from landseer.export.training.lattqe import (
    PARTS,
    TEMPERATURES,
    CrossValidated,
    Form,
    classes,
    learn,
    platt,
)
from landseer.export.training.worlds import worlds

SIZES = Sizes(channels=24, neighbours=12)
SIZES_OF_PAPER = Sizes(channels=64, neighbours=12)
RANGES = EpisodeRanges(size_log=(80.0, 80.0), queries=8, members_log=(4.0, 12.0))
RECIPE = ExpansionRecipe(steps=4, validated=2, validated_at=(1, 4))


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def photographs(classes: int = 10, each: int = 12, views: int = 2, channels: int = 24) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((classes, 1, 1, channels))
    vectors = centres + 0.7 * rng.standard_normal((classes, each, 1, channels))
    vectors = vectors + 0.3 * rng.standard_normal((classes, each, views, channels))
    flat = unit(vectors.reshape(-1, channels).astype(np.float32))
    return flat.reshape(-1, views, channels), np.repeat(np.arange(classes), each)


def mixture(**given: object) -> Mixture:
    return Mixture([[Neighbourhoods(*photographs(**given), RANGES)]])  # type: ignore[arg-type]


def kind(vectors: np.ndarray, labels: np.ndarray) -> list[list[Kind]]:
    return [[Kind(vectors[:, 0], labels)]]


def varied(seed: int, *, positions: bool = True, cosines: bool = True) -> RelationalLAttQE:
    """Return a network that expands."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = RelationalLAttQE(sizes=SIZES, positions=positions, cosines=cosines).eval()
        for module in (network.strength, network.subtract):
            torch.nn.init.normal_(module.weight)
    return network


def tokens(k: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    rows = unit(rng.standard_normal((2 * (k + 1), 24)).astype(np.float32)).reshape(2, k + 1, 24)
    return torch.from_numpy(rows[:, 0]), torch.from_numpy(rows[:, 1:])


@torch.no_grad()
def test_it_begins_without_expansion() -> None:
    query, near = tokens(6)
    got = RelationalLAttQE.untrained(SIZES, seed=3)(query, near, torch.ones(2, 6, dtype=torch.bool))
    torch.testing.assert_close(got.expanded, query)
    assert ((got.relevance > 0) & (got.relevance < 1)).all()


@torch.no_grad()
def test_neighbours_that_share_the_mean_alone_have_nothing_in_common_once_it_is_taken_out() -> None:
    rng = np.random.default_rng(0)
    own = rng.standard_normal((1, 8, 400)).astype(np.float32) / 20
    own[0, 1] = 0.7 * own[0, 0] + 0.7 * own[0, 1]
    rows = torch.from_numpy(unit((own + rng.standard_normal(400) / 10).reshape(8, 400))).reshape(1, 8, 400)
    cosines = rows @ rows.transpose(1, 2)
    assert cosines[0, 0, 1:].min() > 0.7
    found = centred(cosines, torch.ones(1, 8))[0, 0]
    assert found[1] > 0.5 and found[2:].max() < 0.1


@torch.no_grad()
def test_padding_changes_nothing_and_no_neighbour_gives_the_query() -> None:
    network, (query, near) = varied(1), tokens(5)
    short = network(query, near, torch.ones(2, 5, dtype=torch.bool))
    padded = torch.cat([near, torch.full((2, 4, 24), 7.0)], dim=1)
    long = network(query, padded, torch.tensor([[True] * 5 + [False] * 4] * 2))
    torch.testing.assert_close(long.expanded, short.expanded)
    torch.testing.assert_close(long.weights[:, :6], short.weights)
    torch.testing.assert_close(long.relevance[:, :5], short.relevance)
    assert (long.weights[:, 6:] == 0).all() and (long.relevance[:, 5:] == 0).all()
    nothing = network(query, near, torch.zeros(2, 5, dtype=torch.bool)).expanded
    torch.testing.assert_close(nothing, query, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize(("count", "share"), [(16, 0.0), (40, 0.5), (64, 1.0)])
def test_what_is_common_is_subtracted_where_there_are_many_neighbours(count: int, share: float) -> None:
    network = RelationalLAttQE.untrained(Sizes(channels=24), seed=0)
    network.subtract.bias.fill_(0.5)
    query, near = tokens(count)
    weights, logits = network.weights(torch.cat([query[:, None], near], dim=1), torch.ones(2, count, dtype=torch.bool))
    torch.testing.assert_close(weights[:, 1:].sum(dim=1), torch.full((2,), -0.5 * share))
    surely = (1.0 - torch.sigmoid(logits[:, 1:])) ** SURELY_OTHER
    torch.testing.assert_close(weights[:, 1:], -0.5 * share * surely / surely.sum(dim=1, keepdim=True))


@torch.no_grad()
def test_without_positions_the_order_says_nothing() -> None:
    (query, near), present = tokens(6), torch.ones(2, 6, dtype=torch.bool)
    for positions, the_same in ((True, False), (False, True)):
        network = varied(4, positions=positions)
        here, there = network(query, near, present).weights, network(query, near.flip(1), present).weights
        assert torch.allclose(here[:, 1:], there[:, 1:].flip(1), atol=1e-5) == the_same


@torch.no_grad()
def test_without_cosines_the_place_alone_weighs() -> None:
    present = torch.ones(2, 6, dtype=torch.bool)
    for cosines, the_same in ((True, False), (False, True)):
        network = varied(4, cosines=cosines)
        here, there = (network(*tokens(6, seed), present).weights for seed in (0, 1))
        assert torch.allclose(here, there, atol=1e-5) == the_same
        assert here[0, 1:].std() > 1e-3


@torch.no_grad()
def test_a_copy_reads_no_more_than_the_original() -> None:
    (query, near), present = tokens(6), torch.ones(2, 6, dtype=torch.bool)
    network = varied(4, cosines=False)
    torch.testing.assert_close(network.copy()(query, near, present).weights, network(query, near, present).weights)


@torch.no_grad()
def test_it_knows_descriptors_by_their_cosines_alone() -> None:
    network, (query, near) = varied(2), tokens(6)
    rng = np.random.default_rng(5)
    turned = torch.from_numpy(np.linalg.qr(rng.standard_normal((40, 24)))[0].T.astype(np.float32))  # [24, 40]
    present = torch.ones(2, 6, dtype=torch.bool)
    here, there = network(query, near, present), network(query @ turned, near @ turned, present)
    torch.testing.assert_close(here.weights, there.weights, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(here.expanded @ turned, there.expanded, atol=1e-4, rtol=1e-3)


def test_relations_are_finite_where_all_neighbours_are_alike() -> None:
    cosines = torch.ones(1, 4, 4)
    for present in (torch.ones(1, 4), torch.tensor([[1.0, 0.0, 0.0, 0.0]])):
        assert relations(cosines, centred(cosines, present), present).isfinite().all()


def test_episodes_are_decided_by_the_draw_and_every_query_can_be_answered() -> None:
    source = Neighbourhoods(*photographs(), RANGES)
    for seed in range(20):
        first, again = (source.draw(np.random.default_rng(seed)) for _ in range(2))
        assert np.array_equal(first.vectors, again.vectors)
        assert np.array_equal(first.queries, again.queries)
        for rows in (first.vectors, first.queries):
            np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)
        assert len(first.queries) == len(first.wanted) > 0
        assert np.isin(first.wanted, first.labels).all()


def test_a_mixture_puts_one_kind_among_another() -> None:
    kinds = [Neighbourhoods(*photographs(), replace(RANGES, crowded=1.0, simulated=0.0)) for _ in range(2)]
    episode = Mixture([kinds]).draw(np.random.default_rng(1))
    others = episode.labels == OTHER
    assert 0 < others.sum() <= (~others).sum() and len(episode.vectors) == len(episode.labels)
    assert (episode.wanted != OTHER).all()


def test_a_mixture_asks_for_the_kinds_that_are_named_and_never_mixes_worlds() -> None:
    ranges = replace(RANGES, crowded=1.0, simulated=0.0, offset=(0.0, 0.0), noise=(0.0, 0.0), augmented=0.0)
    vectors, labels = photographs()
    # Each kind of each world has an axis of its own, which tells where a picture is from.
    marked = []
    for place in range(4):
        marks = np.zeros((*vectors.shape[:2], 4), np.float32)
        marks[..., place] = 10.0
        marked.append(Neighbourhoods(np.concatenate([vectors, marks], axis=2), labels, ranges))
    for asked, world in ((None, {0, 1, 2, 3}), ([(1, 0)], {2})):
        mixture, found = Mixture([marked[:2], marked[2:]], asked), set()
        for seed in range(24):
            episode = mixture.draw(np.random.default_rng(seed))
            whose = {int(place) for place in episode.vectors[:, -4:].argmax(axis=1)}
            assert whose in ({0, 1}, {2, 3})
            found |= {int(place) for place in episode.queries[:, -4:].argmax(axis=1)}
        assert found == world


@torch.no_grad()
def test_a_free_curve_is_stretched_over_the_neighbours_there_are() -> None:
    network = FittedCurve(sizes=Sizes(channels=24, neighbours=12))
    network.curve.copy_(torch.linspace(1.0, -1.0, 12))
    query, near = tokens(12)
    everywhere = torch.cat([query[:, None], near], dim=1)
    weights, _ = network.weights(everywhere, torch.ones(2, 12, dtype=torch.bool))
    torch.testing.assert_close(weights[0], torch.cat([torch.ones(1), network.curve]))
    some = torch.tensor([[True] * 4 + [False] * 8] * 2)
    found = network.weights(everywhere, some)[0][0]
    assert (found[5:] == 0).all()
    places = (np.arange(4) + 0.5) * 12 / 4 + 0.5
    expected = np.interp(places, np.arange(1, 13), network.curve.numpy())
    np.testing.assert_allclose(found[1:5], expected, atol=1e-6)


def test_each_world_has_a_whitening_that_learned_from_one_kind_alone() -> None:
    rng = np.random.default_rng(0)
    pooled = {
        name: Kind(*(part.reshape(-1, *part.shape[2:]) for part in (rows, owner)))
        for name, (rows, owner) in {
            name: (
                (rng.standard_normal((30, 1, 16)) + 0.3 * rng.standard_normal((30, 4, 16)) + shift).astype(np.float32),
                np.arange(30)[:, None].repeat(4, axis=1),
            )
            for name, shift in (("targets", 3.0 * np.eye(16)[0]), ("views", -3.0 * np.eye(16)[1]))
        }.items()
    }
    served = Projection.untrained(16, 16, seed=0)
    for teacher, kinds in zip(("targets", "views"), worlds(pooled, ["targets", "views"], served, seed=0), strict=True):
        for name, kind in kinds.items():
            np.testing.assert_allclose(np.linalg.norm(kind.vectors, axis=1), 1.0, atol=1e-5)
            alike = float(np.linalg.norm(kind.vectors.mean(axis=0)))
            assert (alike < 0.2) == (name == teacher), (teacher, name, alike)


def test_queries_are_not_in_the_database_they_search() -> None:
    ranges = replace(RANGES, simulated=0.0, augmented=0.0)
    episode = Neighbourhoods(*photographs(), ranges).draw(np.random.default_rng(0))
    assert (episode.queries @ episode.vectors.T).max() < 0.9999


@torch.no_grad()
@pytest.mark.parametrize("network", [varied(4), LAttQE.untrained(SIZES_OF_PAPER, seed=1)])
def test_a_database_is_augmented_as_it_will_be_where_it_is_served(network: ExpansionNetwork) -> None:
    vectors, _ = photographs(classes=3, each=6, channels=network.shape["sizes"].channels)
    vectors = vectors[:, 0]

    def attention(queries: np.ndarray, near: np.ndarray) -> np.ndarray:
        tokens = torch.from_numpy(np.concatenate([queries[:, None], near], axis=1))
        return network.weights(tokens, torch.ones(near.shape[:2], dtype=torch.bool))[0][:, 1:].numpy()

    served = augmentation.augmented(vectors, "lattqe", 5, parameter=0.4, attention=attention)
    rows = torch.from_numpy(neighbourhoods(vectors, 5))
    np.testing.assert_allclose(augmented(network, torch.from_numpy(vectors), rows, 0.4), served, atol=1e-5)


def test_a_neighbourhood_begins_with_the_vector_itself_and_ends_with_the_database() -> None:
    vectors, _ = photographs(classes=3, each=4)
    doubled = np.repeat(vectors[:, 0], 2, axis=0)
    rows = neighbourhoods(doubled, 99)
    assert rows.shape == (24, 24)
    assert np.array_equal(rows[:, 0], np.arange(24))


def test_the_loss_reaches_the_weights_through_the_augmented_database() -> None:
    one = replace(episode(), neighbours=6)
    network = varied(5)
    task = ExpansionTask(network, mixture(), mixture(), RECIPE)
    here = batch_of(one, 3)
    assert (
        here.database(network).requires_grad and not replace(here, neighbourhoods=None).database(network).requires_grad
    )
    task.loss(here).backward()
    assert all(one.grad is None or one.grad.isfinite().all() for one in network.parameters())
    alike = replace(one, vectors=np.repeat(one.vectors[:1], len(one.vectors), axis=0))
    network.zero_grad()
    task.loss(batch_of(alike, 3)).backward()
    assert all(one.grad is None or one.grad.isfinite().all() for one in network.parameters())


def test_photographs_without_views_do_too() -> None:
    vectors, labels = photographs(views=1)
    episode = Neighbourhoods(vectors, labels, replace(RANGES, simulated=1.0)).draw(np.random.default_rng(0))
    assert np.isfinite(episode.vectors).all()


def test_one_class_is_nothing_to_learn_from(tmp_path: Path) -> None:
    vectors, _ = photographs()
    with pytest.raises(ValueError, match="got 1 classes"):
        Neighbourhoods(vectors, np.zeros(len(vectors), np.int64))
    with pytest.raises(TrainingError, match="cannot learn to expand from 1 classes"):
        learn(kind(vectors, np.zeros(len(vectors), np.int64)), tmp_path)


def episode() -> Episode:
    vectors, labels = photographs(classes=4, each=6)
    asked = np.array([0, 7, 20])
    rest = np.setdiff1d(np.arange(24), asked)
    return Episode(vectors=vectors[rest, 0], labels=labels[rest], queries=vectors[asked, 0], wanted=labels[asked])


def test_neighbours_are_the_nearest() -> None:
    one = episode()
    batch = batch_of(one, 5)
    order = np.argsort(-(one.queries @ one.vectors.T), axis=1)[:, :5]
    assert np.array_equal(batch.nearest(batch.vectors), order)
    kept = torch.tensor([[True, False, True, False, True]] * 3)
    near, present = replace(batch, kept=kept).seen(batch.vectors)
    assert np.array_equal(near, order[:, [0, 2, 4, 1, 3]])
    assert present.tolist() == [[True] * 3 + [False] * 2] * 3


def test_smooth_precision_nears_the_precision_and_both_losses_prefer_the_right_order() -> None:
    one = episode()
    batch = batch_of(one, 3)
    right = torch.where(batch.relevant, 0.9, 0.1) + 0.01 * torch.rand(batch.relevant.shape)
    wrong = 1.0 - right
    assert smooth_ap(right, batch, 0.001).mean().item() == pytest.approx(1.0, abs=1e-3)
    ranks = torch.arange(1, 6, dtype=torch.float32)
    worst = (ranks / (ranks + 16)).mean().item()  # 5 right ones behind 16 wrong ones
    assert smooth_ap(wrong, batch, 0.0001).mean().item() == pytest.approx(worst, abs=0.01)
    assert contrastive(right, batch, 0.05) < contrastive(wrong, batch, 0.05)
    # Right ones at cosine 0.98 are 0.2 away; wrong ones are far, but for one on the query itself.
    scores = torch.where(batch.relevant, 0.98, 0.1)
    assert margin_loss(scores, batch).item() == pytest.approx(0.04, abs=1e-6)
    scores[torch.arange(3), (~batch.relevant).int().argmax(dim=1)] = 1.0
    assert margin_loss(scores, batch).item() == pytest.approx(0.04 + 0.01, abs=1e-4)


@pytest.mark.parametrize("paper", [False, True])
def test_a_training_is_decided_by_its_seed_and_can_be_served(tmp_path: Path, paper: bool) -> None:
    vectors, labels = photographs(channels=64)
    form = Form(recipe=RECIPE, ranges=replace(RANGES, augmented=0.5))
    if paper:
        form = Form(
            make=lambda sizes: LAttQE(sizes=sizes),
            paper=True,
            recipe=replace(RECIPE, paper=True),
            ranges=replace(RANGES, augmented=0.0),
        )
    runs = [learn(kind(vectors, labels), tmp_path / name, form=form, epochs=2) for name in ("a", "b")]
    assert [run.outcome.best for run in runs] == [runs[0].outcome.best] * 2
    path = tmp_path / "lattqe.safetensors"
    write_lattqe(runs[0].network, path, {"seed": 0})
    served = read_lattqe(path, Sizes(channels=64))
    query, near = vectors[:2, 0], vectors[2:12, 0].reshape(2, 5, -1)
    np.testing.assert_array_equal(expand_all(served, query, near), expand_all(runs[1].network, query, near))
    assert [run.behind_lattdba(0.5) for run in runs] == [runs[0].behind_lattdba(0.5)] * 2


def test_the_networks_of_all_parts_are_kept_and_what_they_tell_is_calibrated(tmp_path: Path) -> None:
    vectors, labels = photographs(channels=64)
    form = Form(recipe=RECIPE, ranges=RANGES)
    parts = [
        learn(kind(vectors, labels), tmp_path / f"{part}", form=form, part=part, epochs=1) for part in range(PARTS)
    ]
    run = CrossValidated(parts)
    assert run.reached == np.mean([one.outcome.best for one in parts])
    assert run.temperature() in TEMPERATURES
    with pytest.raises(ValueError, match="got 2 trainings; expected 3"):
        CrossValidated(parts[:2])
    scale, shift = run.network.calibration
    logits, relevant = (torch.cat(some) for some in zip(*(one.judged() for one in parts), strict=True))
    told = torch.sigmoid(scale * logits + shift).mean().item()
    assert told == pytest.approx(relevant.float().mean().item(), abs=1e-3)
    path = tmp_path / "lattqe.safetensors"
    write_lattqe(run.network, path, {})
    query, near = vectors[:2, 0], vectors[2:12, 0].reshape(2, 5, -1)
    served = read_lattqe(path, Sizes(channels=64))
    np.testing.assert_array_equal(expand_all(served, query, near), expand_all(run.network, query, near))


def test_calibration_finds_the_scale_and_the_shift() -> None:
    logits = torch.linspace(-4.0, 4.0, 20_000)
    relevant = torch.rand(20_000, generator=torch.Generator().manual_seed(0)) < torch.sigmoid(0.5 * logits - 1.0)
    torch.testing.assert_close(platt(logits, relevant), torch.tensor([0.5, -1.0]), atol=0.05, rtol=0.0)


def test_every_class_validates_one_part_and_is_learned_from_in_the_others() -> None:
    labels = [f"class{number}" for number in range(7) for _ in range(3)]
    parts = [classes(labels, part=part, seed=4) for part in range(PARTS)]
    held = [{labels[row] for row in rows} for _, rows in parts]
    assert sorted(label for some in held for label in some) == sorted(set(labels)) and all(len(s) >= 2 for s in held)
    assert all(sorted([*fit, *rows]) == list(range(21)) for fit, rows in parts)
    assert all({labels[row] for row in fit}.isdisjoint(some) for (fit, _), some in zip(parts, held, strict=True))
    assert [rows.tolist() for _, rows in parts] == [classes(labels, part=part, seed=4)[1].tolist() for part in range(3)]
    with pytest.raises(TrainingError, match="cannot learn to expand from 5 classes; expected 6 or more"):
        classes(labels[:15], part=0, seed=0)


def test_the_mean_of_networks_weighs_by_the_mean_of_their_weights() -> None:
    def less(some: list[torch.Tensor]) -> torch.Tensor:
        one = sum(some, torch.zeros(())) / 3
        return torch.where(one < 0, 0.75 * one, one)

    networks = [varied(seed) for seed in range(3)]
    mean = MeanLAttQE.of(networks)
    vectors = photographs()[0][:30, 0]
    tokens, mask = torch.from_numpy(vectors).reshape(3, 10, -1), torch.ones(3, 9, dtype=torch.bool)
    mask[1, 6:] = False
    with torch.no_grad():
        weights, logits = mean.weights(tokens, mask)
        each = [network.weights(tokens, mask) for network in networks]
        torch.testing.assert_close(weights, less([one for one, _ in each]))
        assert (weights < 0).any() and (weights > 0).any()
        torch.testing.assert_close(logits, sum(one for _, one in each) / 3)
        rows = torch.tensor([[0, 3, 5], [7, 1, 2]])
        among = less([network.among(tokens.flatten(0, 1), rows) for network in networks])
        torch.testing.assert_close(mean.among(tokens.flatten(0, 1), rows), among)
    assert (weights[:, 0] == 1.0).all() and (weights[1, 7:] == 0.0).all()
    assert all(torch.equal(one, other) for one, other in zip(mean.copy().parameters(), mean.parameters(), strict=True))
    with torch.no_grad():
        networks[0].strength.bias += 1.0
        torch.testing.assert_close(mean.weights(tokens, mask)[0], weights)  # it has copies
    with pytest.raises(ValueError, match="got 2 networks of 2 forms; expected some of one form"):
        MeanLAttQE.of([networks[0], varied(0, cosines=False)])
    with pytest.raises(ValueError, match="got 0 networks"):
        MeanLAttQE.of([])


def test_training_learns_to_expand(tmp_path: Path) -> None:
    vectors, labels = photographs(classes=12, each=8)
    ranges = replace(RANGES, simulated=0.0, members_log=(5.0, 6.0))
    recipe = replace(RECIPE, steps=30, validated=6, validated_at=(5,), average=0.2)
    found = learn(kind(vectors, labels), tmp_path, form=Form(recipe=recipe, ranges=ranges), epochs=3)
    assert found.outcome.best > found.outcome.start + 1.0


def test_more_neighbours_than_pictures_are_taken_as_they_are() -> None:
    assert 0.0 <= expanded_map(RelationalLAttQE.untrained(Sizes(channels=24), seed=0), episode(), 64) <= 100.0


def test_files_that_hold_no_expansion_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "lattqe.safetensors"
    with pytest.raises(WeightsError, match="landseer train lattqe"):
        read_lattqe(path, SIZES)
    path.write_bytes(b"no")
    with pytest.raises(WeightsError, match="holds no trained LAttQE"):
        read_lattqe(path, SIZES)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match="of format None"):
        read_lattqe(path, SIZES)
    about = {"format": "landseer lattqe 2", "form": json.dumps({"kind": "other"}), "card": "{}"}
    save_file({"a": torch.zeros(1)}, path, about)
    with pytest.raises(WeightsError, match="holds no trained LAttQE"):
        read_lattqe(path, SIZES)
    write_lattqe(LAttQE.untrained(Sizes(channels=64), seed=0), path, {})
    with pytest.raises(WeightsError, match="holds no trained LAttQE for 12 neighbours"):
        read_lattqe(path, Sizes(channels=64, neighbours=12))
