from __future__ import annotations

import pickle
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shared_files import shared

from landseer.ensemble.pictures.pictures import Region
from landseer.export.datasets import revisited
from landseer.ops.errors import OpsError
from landseer.ops.evaluate.cache import vector_cache
from landseer.ops.evaluate.dataset import Shot
from landseer.ops.evaluate.methods import Method, rankings
from landseer.ops.evaluate.notation import parse
from landseer.ops.evaluate.readers import landmarks, read


@pytest.fixture
def folder(tmp_path):
    """Two classes of two pictures, one of one, and a file that is no picture."""
    for name in ("a/1.png", "a/2.png", "b/1.png", "b/3.png", "c/9.png"):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    (tmp_path / "data" / "notes.txt").write_text("x")
    return tmp_path / "data"


def test_a_folder_is_a_class_and_every_picture_a_query(folder):
    found = read(f"folder:{folder}")
    assert [path.relative_to(folder).as_posix() for path in found.references] == [
        "a/1.png",
        "a/2.png",
        "b/1.png",
        "b/3.png",
        "c/9.png",
    ]
    # What is alone in its class has nothing to find, but is in the way of others.
    assert [query.label for query in found.queries] == ["a", "a", "b", "b"]
    assert found.classes().tolist() == [0, 0, 1, 1] and found.summary() == "4 queries of 2 classes, 5 references"
    unknown = replace(found, queries=[replace(query, thing=None) for query in found.queries])
    assert unknown.classes().tolist() == [0, 1, 2, 3]
    assert unknown.summary() == "4 queries, each counted as a class of its own, 5 references"
    assert [truth.easy.tolist() for truth in found.truths()] == [[1], [0], [3], [2]]
    assert found.own_rows() == [0, 1, 2, 3]


def test_folders_of_one_name_are_one_class(folder):
    found = read(f"folder:{folder / 'a'},{folder / 'b'}")
    assert len(found.references) == 4
    (folder / "b").rename(folder / "more")
    (folder / "more" / "a").mkdir()
    (folder / "c" / "9.png").rename(folder / "more" / "a" / "9.png")
    truths = read(f"folder:{folder / 'a'},{folder / 'more' / 'a'}").truths()
    assert [truth.easy.tolist() for truth in truths] == [[1, 2], [0, 2], [0, 1]]


def test_folders_within_each_other_count_once(folder):
    assert len(read(f"folder:{folder},{folder / 'a'}").references) == 5


def test_a_cache_that_is_none_is_one_line(tmp_path):
    (tmp_path / "cache").write_text("no database at all, but long enough to be looked at")
    with pytest.raises(OpsError, match="name another file: --cache"), vector_cache(tmp_path / "cache", "models"):
        pass


def test_a_cache_that_cannot_be_made_is_one_line():
    with pytest.raises(OpsError, match="name another file: --cache"), vector_cache(Path("/dev/null/cache"), "models"):
        pass


def test_a_csv_names_path_and_class(folder):
    file = folder / "list.csv"
    file.write_text("path,class\na/1.png, x\nb/1.png,x\n\nb/3.png,y\n")
    found = read(f"csv:{file}")
    assert [query.label for query in found.queries] == ["x", "x"]
    assert len(found.references) == 3


def test_a_part_of_the_grocery_store_is_31_products():
    found = read(f"grocery:{shared('data/grocery')},Packages")
    assert len({query.label for query in found.queries}) == 31
    assert len(found.queries) == len(found.references) == 1745


def test_pairs_match_by_stem(folder):
    found = read(f"pairs:{folder / 'a'},{folder / 'b'}")
    assert [query.label for query in found.queries] == ["1"]
    assert found.classes().tolist() == [0]
    assert found.truths()[0].easy.tolist() == [0]
    assert found.own_rows() == [None]


def test_pairs_may_have_queries_in_several_folders(folder):
    (folder / "c" / "9.png").rename(folder / "c" / "3.png")
    found = read(f"pairs:{folder / 'a'},{folder / 'c'},{folder / 'b'}")
    assert [(query.shot.path.parent.name, query.label) for query in found.queries] == [("a", "1"), ("c", "3")]
    assert [path.parent.name for path in found.references] == ["b", "b"]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("nothing", "cannot read 'nothing' as a data set; expected one of"),
        ("zip:a", "cannot read 'zip:a' as a data set"),
        ("folder:{}/gone", "gone is not a folder"),
        ("folder:{}/empty", "has no pictures"),
        ("folder:{}/c", "no class has two pictures"),
        ("csv:{}/gone.csv", "cannot read"),
        ("csv:{}/short.csv", "short.csv, line 2: got 'b/1.png'; expected path,class"),
        ("csv:{}/missing.csv", "missing.csv, line 1: no picture at"),
        ("csv:{}/twice.csv", "twice.csv, line 2: a/1.png is listed twice"),
        ("pairs:{}/a", "names one folder"),
        ("pairs:{0}/a,{0}/c", "has the same file stem as one in"),
        ("revisitop:{}", "is incomplete"),
        ("revisitop:{},roxford5k", "no gnd_roxford5k.pkl"),
    ],
)
def test_what_cannot_be_read_says_why(folder, spec, said):
    (folder / "empty").mkdir()
    (folder / "short.csv").write_text("a/1.png,x\nb/1.png\n")
    (folder / "missing.csv").write_text("gone.png,x\n")
    (folder / "twice.csv").write_text("a/1.png,x\na/1.png,y\n")
    with pytest.raises(OpsError, match=re.escape(said)):
        read(spec.format(folder))


def ground_truth(folder, known, name="roxford5k"):
    (folder / f"gnd_{name}.pkl").write_bytes(pickle.dumps(known))


def test_revisited_oxford_is_read_with_its_boxes_and_degrees(folder):
    photos = folder / "jpg"
    photos.mkdir()
    for stem in ("one", "two", "three", "asked"):
        (photos / f"{stem}.jpg").write_bytes(b"x")
    truth = {"bbx": [1.0, 2.0, 11.0, 22.0], "easy": np.array([0]), "hard": [1], "junk": [2]}
    ground_truth(folder, {"imlist": ["one", "two", "three"], "qimlist": ["asked"], "gnd": [truth]})
    found = read(f"revisitop:{folder},roxford5k")
    assert found.protocols == ("easy", "medium", "hard")
    assert found.queries[0].shot == Shot(path=photos / "asked.jpg", region=Region(x=1, y=2, width=10, height=20))
    [known] = found.truths()
    assert [part.tolist() for part in (known.easy, known.hard, known.junk)] == [[0], [1], [2]]
    assert found.own_rows() == [None]
    (photos / "two.jpg").unlink()
    with pytest.raises(OpsError, match=r"1 of 3 photographs are missing from .*such as two.jpg"):
        read(f"revisitop:{folder},roxford5k")


@pytest.mark.parametrize("name", ["roxford5k", "rparis6k"])
def test_the_official_ground_truth_is_plain_data(name):
    with pytest.raises(OpsError, match="photographs are missing from"):
        read(f"revisitop:{shared('data/revisitop')},{name}")


@pytest.mark.parametrize("name", ["roxford5k", "rparis6k"])
def test_the_queries_of_a_landmark_are_told_by_their_pictures(name):
    found = landmarks(revisited.ground_truth(f"{shared('data/revisitop')},{name}").queries)
    # Five queries of each of the old benchmark's 11 landmarks, then three more of five of these.
    assert len(found) == 70 and len(set(found)) == len(set(found[:55])) == 11
    assert all(len(set(found[first : first + 5])) == 1 for first in range(0, 55, 5))
    assert all(len(set(found[first : first + 3])) == 1 for first in range(55, 70, 3))


def test_landmarks_share_most_of_their_pictures():
    rows = [{"easy": [0, 1], "hard": [2], "junk": [3]}, {"easy": [9, 0], "hard": [], "junk": []}]
    rows += [{"easy": [2, 3], "hard": [1], "junk": []}]
    queries = [
        revisited.RevisitedQuery(path=Path(f"{place}.jpg"), corners=(0, 0, 1, 1), rows=one)
        for place, one in enumerate(rows)
    ]
    assert landmarks(queries) == ["0", "1", "0"]


class Evil:
    def __reduce__(self):
        return print, ("run",)


def test_a_ground_truth_that_would_run_code_is_refused(folder, capsys):
    ground_truth(folder, {"imlist": Evil()})
    with pytest.raises(OpsError, match=r"it references builtins.print, which no ground truth needs"):
        read(f"revisitop:{folder},roxford5k")
    assert "run" not in capsys.readouterr().out
    ground_truth(folder, {"imlist": []})
    with pytest.raises(OpsError, match="lacks gnd, qimlist"):
        read(f"revisitop:{folder},roxford5k")


def test_queries_are_drawn_with_a_seed_and_bad_pictures_taken_out(folder):
    found = read(f"folder:{folder}")
    assert found.sampled(2, seed=1).queries == found.sampled(2, seed=1).queries
    assert len(found.sampled(2, seed=1).queries) == 2
    assert found.sampled(99, seed=1) is found
    bad = found.references[1]
    left = found.without([bad])
    assert bad not in left.references
    assert [truth.easy.tolist() for truth in left.truths()] == [[], [2], [1]]
    more = left.with_distractors([folder / "z.png", left.references[0]])
    assert (len(more.references), more.distractors) == (5, 1)
    assert more.without([folder / "z.png"]).distractors == 0
    assert more.without([more.references[0]]).distractors == 1


def test_pictures_are_drawn_with_the_queries_among_them(folder):
    found = read(f"folder:{folder}")
    whole = replace(found, references=[*found.references, folder / "z.png"], distractors=1)
    parts = [whole.drawn(2, seed=seed) for seed in range(20)]
    assert parts[0] == whole.drawn(2, seed=0)
    assert whole.drawn(None, seed=0) is whole and whole.drawn(len(whole.references), seed=0) is whole
    for part in parts:
        assert len(part.references) == 2 and part.distractors == (folder / "z.png" in part.references)
        assert {query.shot.path for query in part.queries} <= set(part.references)
        assert all(len(truth.easy) for truth in part.truths())
    assert any(part.queries for part in parts)
    apart = replace(whole, queries=[replace(query, shot=Shot(path=folder / "q.png")) for query in whole.queries])
    assert any(part.queries for part in (apart.drawn(1, seed=seed) for seed in range(20)))


def test_arrays_are_kept_by_models_picture_region_and_name(tmp_path):
    whole = Shot(path=tmp_path / "a.jpg")
    part = Shot(path=tmp_path / "a.jpg", region=Region(x=0, y=0, width=1, height=1))
    arrays = {"descriptor": np.arange(3, dtype=np.float32), "clusters": np.ones((2, 3), np.float16)}
    with vector_cache(tmp_path / "deep" / "cache.sqlite", "models") as cache:
        cache.put(cache.key(whole, b"bytes"), arrays)
    with vector_cache(tmp_path / "deep" / "cache.sqlite", "models") as cache:
        key = cache.key(whole, b"bytes")
        assert cache.names(key) == set(arrays)
        for name, array in arrays.items():
            found = cache.get(key, name)
            assert found.dtype == array.dtype
            np.testing.assert_array_equal(found, array)
        assert cache.get(key, "boxes") is None
        # Under another name it is the same picture.
        assert cache.key(Shot(path=tmp_path / "b.jpg"), b"bytes") == key
        assert not cache.names(cache.key(whole, b"other"))
        assert not cache.names(cache.key(part, b"bytes"))
    with vector_cache(tmp_path / "deep" / "cache.sqlite", "other models") as cache:
        assert not cache.names(cache.key(whole, b"bytes"))


def test_methods_are_read_with_their_defaults():
    assert [str(parse(text, positions=64)) for text in ("none", "aqe", "alphaqe", "alphaqe:10:2", "dqe:3")] == [
        "none",
        "aqe:1",
        "alphaqe:2:3",
        "alphaqe:10:2",
        "dqe:3",
    ]
    assert parse("lattqe", positions=32).neighbours == 32
    assert [str(parse(text, positions=64)) for text in ("verified", "verified:3")] == ["verified:10", "verified:3"]
    assert [parse(text, positions=64) for text in (" sift", "default", "once", "both", "keypoints")] == [
        Method(name=name) for name in ("sift", "default", "once", "both", "keypoints")
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "qe",
        "aqe:x",
        "aqe:0",
        "aqe:2:3",
        "alphaqe:1:2:3",
        "dqe:65",
        "none:3",
        "lattqe:65",
        "alphaqe:3:nan",
        "alphaqe:3:-1",
        "sift:3",
        "sift+spatial",
        "adba+both",
        "default+aqe",
        "keypoints:64",
        "once:3",
        "verified:0",
        "verified:3:4",
        "verified+aqe",
    ],
)
def test_methods_that_cannot_be_are_refused(text):
    with pytest.raises(OpsError, match="--methods"):
        parse(text, positions=64)


def units(count, size, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(count, size))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def no_lattqe(query, neighbours):
    raise AssertionError("not asked for")


@pytest.mark.parametrize("name", ["none", "aqe", "aqewd", "aqewd-dir", "alphaqe", "dqe"])
def test_every_ranking_has_all_references_but_the_query_itself(name):
    references = units(40, 8)
    method = Method(name=name, neighbours=0 if name == "none" else 5)
    own = [3, None]
    found = list(rankings(method, references[[3, 7]], references, own, lattqe=no_lattqe))
    assert sorted(found[0].tolist()) == [row for row in range(40) if row != 3]
    assert sorted(found[1].tolist()) == list(range(40))
    if name == "none":
        scores = references @ references[3]
        assert found[0].tolist() == [row for row in np.argsort(-scores, kind="stable") if row != 3]
        assert found[1][0] == 7


def test_lattqe_is_asked_with_the_neighbours_nearest_first():
    references, asked = units(10, 4), []

    def lattqe(query, neighbours):
        asked.append((query, neighbours))
        return query

    [order] = rankings(Method(name="lattqe", neighbours=3), references[:1], references, [0], lattqe=lattqe)
    [(query, neighbours)] = asked
    np.testing.assert_array_equal(neighbours, references[order[:3]])
    np.testing.assert_array_equal(query, references[0])
