"""The report on the very same thing: its pure parts, and that a failure or Ctrl-C leaves the rest."""

from __future__ import annotations

import argparse
import math
import os
import resource
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from landseer.ensemble.asmk.aggregate import Binary
from landseer.ensemble.asmk.inverted_file import InvertedFile
from landseer.ensemble.asmk.kernel import KERNELS
from landseer.ensemble.keypoints.compact import BITS, CompactKeypoints
from landseer.ops.bench.page_cache import memory_bytes
from landseer.ops.errors import OpsError
from landseer.ops.evaluate.dataset import Dataset, Query, Shot
from landseer.ops.research import very_same_index, very_same_thing, very_same_words
from landseer.ops.research.very_same_data import FLAT, THINGS, Sought, libraries
from landseer.ops.research.very_same_figures import (
    Baseline,
    LibraryFigures,
    Measured,
    SetFigures,
    added,
    milliseconds,
    verified_hits,
    wrong_hits,
)
from landseer.ops.research.very_same_index import Indexed, Rates, compared, drawn_chunks
from landseer.ops.research.very_same_report import markdown
from landseer.ops.research.very_same_run import _spread
from landseer.ops.research.very_same_search import DEFAULT, FEW, GLOBAL, NOT_VERIFIED, SHORT_LIST, Asker, Found, Row
from landseer.ops.research.very_same_steps import INTERRUPTED, NOT_REACHED, Steps
from landseer.ops.research.very_same_words import (
    KERNEL,
    LEAST,
    MOST,
    Growth,
    Pool,
    ScaledWords,
    grown,
    limited,
    query_words,
    stored_pool,
)
from landseer.v1.common_pb2 import Degradation, StageTiming
from landseer.v1.index_pb2 import KeypointsStats, StatsResponse, VisualWordsStats
from landseer.v1.search_pb2 import Hit, SearchResponse, Verification

WORDS = 64
REFERENCES = [Path(f"r/{number}.jpg") for number in range(8)]


def data(things=8):
    """Query i shows reference i, and thing i."""
    queries = [
        Query(shot=Shot(path=Path(f"q/{number}.jpg")), easy=frozenset([REFERENCES[number]]), thing=str(number))
        for number in range(things)
    ]
    return Dataset(name="pairs:q,r", queries=queries, references=REFERENCES)


def found(order, probabilities=None, *, seconds=0.5, **stages):
    chances = np.full(len(order), np.nan) if probabilities is None else np.array(probabilities, float)
    return Found(
        order=np.array(order, np.int64),
        probabilities=chances,
        inliers=np.where(np.isnan(chances), NOT_VERIFIED, 10),
        seconds=seconds,
        stages={"total": seconds, **stages},
    )


def picture(path, seed=0, size=32):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


# Data


@pytest.fixture
def views(tmp_path):
    for number in range(3):
        for folder in ("one", "two", "references", "distractors"):
            picture(tmp_path / folder / f"{number}.png", number)
        picture(tmp_path / "things" / str(number % 2) / f"{number}.png", number)
    picture(tmp_path / "things" / "1" / "3.png", 3)
    return tmp_path


def test_data_sets_with_the_same_references_share_a_library(views):
    specs = [
        (FLAT, f"pairs:{views / 'one'},{views / 'references'}"),
        (FLAT, f"pairs:{views / 'two'},{views / 'references'}"),
        (THINGS, f"folder:{views / 'things'}"),
    ]
    both, things = libraries([*specs, specs[0]], distractors=[views / "distractors"], queries=2, seed=0)
    assert [one.spec for one in both.sets] == [specs[0][1], specs[1][1]]
    assert [one.kind for one in things.sets] == [THINGS]
    for library, references in ((both, 3), (things, 4)):
        assert len(library.references) == references + 3
        for one in library.sets:
            assert list(one.data.references) == list(library.references)
            assert len(one.data.queries) == 2 and one.data.distractors == 3


def test_unreadable_pictures_leave_a_library(views):
    (views / "one" / "1.png").write_bytes(b"no picture")
    (views / "references" / "2.png").write_bytes(b"no picture")
    spec = f"pairs:{views / 'one'},{views / 'references'}"
    [library] = libraries([(FLAT, spec)], distractors=[], queries=None, seed=0)
    bad = dict(library.unreadable_queries())
    assert list(bad) == [views / "one" / "1.png"] and bad[views / "one" / "1.png"]
    left = library.without([*bad, views / "references" / "2.png"])
    assert len(left.references) == 2
    # The query without an answer counts in no figure.
    assert [query.shot.path.name for query in left.sets[0].data.queries] == ["0.png", "2.png"]
    with pytest.raises(OpsError, match="no query has a right answer"):
        library.without([*library.references])


def test_an_unreadable_picture_of_another_set_is_no_loss_to_this_one(views):
    specs = [(FLAT, f"pairs:{views / name},{views / 'references'}") for name in ("one", "two")]
    [library] = libraries(specs, distractors=[], queries=None, seed=0)
    one, two = library.without([views / "one" / "0.png"]).sets
    assert len(one.data.queries) == 2 and len(two.data.queries) == 3
    assert two.data.skipped == ()


# Searching


class Service:
    """Answers every search with all references, in a given order."""

    def __init__(self, ids, **answer):
        self.ids, self.answer, self.asked = ids, answer, []

    def search(self, query, **options):
        self.asked.append((query, options))
        hits = [Hit(id=id, verification=Verification(inliers=12, probability=0.9)) for id in self.ids[:1]]
        hits += [Hit(id=id) for id in self.ids[1:]]
        timings = [StageTiming(stage="total", seconds=0.25)]
        return SearchResponse(hits=hits[: options["top_k"]], timings=timings, **self.answer)


@pytest.fixture
def two(tmp_path):
    paths = [picture(tmp_path / name, seed) for seed, name in enumerate(("a.png", "b.png", "c.png"))]
    queries = [Query(shot=Shot(path=path), easy=frozenset([paths[2]]), thing="x") for path in paths[:2]]
    return Dataset(name="d", queries=queries, references=[paths[0], paths[2]])


def test_every_query_is_asked_by_every_row_and_never_finds_itself(two):
    own, other = (path.as_posix() for path in two.references)
    service, asked = Service([own, other]), []
    found_by = Asker(service, two, hits=1).all([DEFAULT, GLOBAL], lambda: asked.append(1))
    assert len(asked) == 4 and list(found_by) == [DEFAULT.name, GLOBAL.name]
    # The first query is a reference: one hit more is asked for, and it is dropped.
    assert [one.order.tolist() for one in found_by[DEFAULT.name]] == [[1], [0]]
    assert [options["top_k"] for _, options in service.asked] == [2, 2, 1, 1]
    assert service.asked[0][1] == {"top_k": 2} and service.asked[1][1]["first_stage"] == "global"
    # The next query is asked in the other order; queries are sent as pictures.
    assert service.asked[3][1] == {"top_k": 1}
    assert all(isinstance(query, bytes) for query, _ in service.asked)
    first, second = found_by[DEFAULT.name]
    assert np.isnan(first.probabilities).all() and first.inliers.tolist() == [NOT_VERIFIED]
    assert second.probabilities.tolist() == pytest.approx([0.9]) and second.inliers.tolist() == [12]
    assert first.stages == {"total": 0.25} and first.seconds > 0


def test_a_turned_query_is_sent_turned(two):
    service = Service([path.as_posix() for path in two.references])
    asker = Asker(service, two, hits=FEW)
    asker.ask(two.queries[1], None, Row(name="turned", turn=90))
    asker.ask(two.queries[1], None, DEFAULT)
    assert service.asked[0][0][:2] == b"\xff\xd8" and service.asked[1][0] == two.queries[1].shot.path.read_bytes()


def test_an_answer_without_a_stage_is_refused(two):
    service = Service([], degradations=[Degradation(stage="words", reason="DEADLINE_PASSED")])
    with pytest.raises(OpsError, match="left out words"):
        Asker(service, two, hits=FEW).ask(two.queries[0], 0, DEFAULT)


# Figures


def set_figures():
    """The default finds 7 of 8 first, the global descriptor the 4 with an even number."""
    own = [[number, (number + 1) % 8] for number in range(8)]
    default = [found(order, [0.9, 0.1]) for order in own[:7]] + [found([0, 7], [0.92, 0.95])]
    plain = [found(order if place % 2 == 0 else order[::-1]) for place, order in enumerate(own)]
    sought = Sought(kind=FLAT, spec="pairs:q,r", data=data())
    return SetFigures(sought=sought, found={DEFAULT.name: default, GLOBAL.name: plain})


def test_differences_to_the_baseline_are_paired_by_query():
    one = set_figures()
    sample = data().sampled(4, 3)
    numbers = [int(query.shot.path.stem) for query in sample.queries]
    # It finds nothing right first, and everything second.
    baseline = Baseline(data=sample, orders=[np.array([(n + 1) % 8, n]) for n in numbers], milliseconds=1.0)
    first, average = one.against(GLOBAL.name, baseline)
    assert first.tolist() == [1.0 - n % 2 for n in numbers]
    assert average.tolist() == pytest.approx([0.75 * (1 - n % 2) for n in numbers])


def test_the_baseline_is_judged_on_as_many_hits_as_the_others():
    one = Dataset(
        name="d",
        queries=[Query(shot=Shot(path=Path("q")), easy=frozenset([Path("0")]))],
        references=[Path(str(number)) for number in range(SHORT_LIST + 1)],
    )
    late = np.array([*range(1, SHORT_LIST + 1), 0])
    assert Baseline(data=one, orders=[late], milliseconds=1.0).figures.aps.tolist() == [0.0]


def test_sure_hits_are_those_with_a_high_probability():
    one = set_figures()
    hits = verified_hits(one.found[DEFAULT.name], one.sought.data)
    assert len(hits.right) == 16 and np.count_nonzero(hits.right) == 8
    # Seven right ones of 0.9, and of the last query 0.92, wrong, and 0.95, right.
    assert np.count_nonzero(hits.sure) == 9 and np.count_nonzero(hits.sure & hits.right) == 8
    [wrong] = wrong_hits(one.found[DEFAULT.name], one.sought.data)
    assert (wrong.query.name, wrong.hit.name, wrong.probability, wrong.inliers) == ("7.jpg", "0.jpg", 0.92, 10)
    assert len(verified_hits(one.found[GLOBAL.name], one.sought.data).right) == 0
    assert wrong_hits(one.found[GLOBAL.name], one.sought.data) == []


def test_times_are_paired_and_stages_may_be_missing():
    timed = {
        DEFAULT.name: [found([0], seconds=0.3 + 0.1 * place, rerank=0.01) for place in range(3)],
        GLOBAL.name: [found([0], seconds=0.2 + 0.1 * place) for place in range(3)],
    }
    assert added(timed, seed=0).median == pytest.approx(100.0)
    assert milliseconds(timed[DEFAULT.name], "rerank").tolist() == [10.0] * 3
    assert milliseconds(timed[GLOBAL.name], "rerank").tolist() == []


# Indexing


def test_chunks_come_again_if_there_are_too_few_pictures():
    chunks = drawn_chunks(REFERENCES, rounds=2, chunk=5, seed=1)
    assert [len(chunk) for chunk in chunks] == [5, 5, 5]
    drawn = [path for chunk in chunks for path in chunk]
    assert set(drawn[:8]) == set(REFERENCES)
    assert chunks == drawn_chunks(REFERENCES, rounds=2, chunk=5, seed=1)


def test_services_take_turns_and_the_first_chunk_only_warms_up(monkeypatch):
    calls = []

    def index(address, chunk):
        calls.append((address, len(chunk)))
        return Indexed(pictures=len(chunk), seconds=2.0 if address == "keypoints" else 1.0, unreadable={})

    monkeypatch.setattr(very_same_index, "index", index)
    chunks = [[Path("a")], [Path("a"), Path("b")], [Path("c"), Path("d")]]
    rates = compared(("keypoints", "none"), chunks)
    assert [address for address, _ in calls] == ["keypoints", "none", "none", "keypoints", "none", "keypoints"]
    assert rates.ratios.tolist() == [0.5, 0.5] and rates.none.tolist() == [2.0, 2.0]


# Words at scale


def compact(seed, count=50):
    draws = np.random.default_rng(seed)
    return CompactKeypoints(
        words=draws.integers(0, WORDS, count),
        codes=draws.integers(0, 256, (count, BITS // 8), np.uint8),
        positions=np.zeros((count, 2), np.float32),
        sizes=np.ones(count, np.float32),
        angles=np.zeros(count, np.float32),
        frame=(640, 480),
    )


def growth(seed=0):
    pool = Pool.of([compact(seed) for seed in range(4)])
    return Growth(pool=pool, queries=[pool.picture(np.random.default_rng(9))], seed=seed, words=WORDS)


def test_a_generated_picture_has_keypoints_of_real_ones():
    pool = Pool.of([compact(seed) for seed in range(4)])
    assert pool.pictures == 4 and 0 < pool.distinct <= WORDS
    counts = []
    draws = np.random.default_rng(0)

    class Draws:
        def integers(self, *given, **named):
            found = draws.integers(*given, **named)
            counts.append(found)
            return found

    one = pool.picture(Draws())
    assert LEAST <= counts[0] <= MOST and len(counts[1]) == counts[0]
    assert set(one.words.tolist()) <= set(pool.words.tolist()) and one.bits == BITS
    with pytest.raises(OpsError, match="without a keypoint"):
        Pool.of([compact(0, count=0)])


def test_searches_are_timed_at_each_size(monkeypatch):
    monkeypatch.setattr(very_same_words, "BATCH", 7)
    added_by = []
    small, large = grown(growth(), [20, 10], room=2**30, advance=added_by.append)
    assert (small.pictures, large.pictures) == (10, 20) and small.fits and large.fits
    assert sum(added_by) == 20 and max(added_by) == 7
    assert len(small.seconds) == 1 and small.first > 0 and large.bytes > small.bytes and large.peak >= small.peak
    # The same pictures as those of one file filled at once.
    pool, draws = growth().pool, np.random.default_rng(0)
    file = InvertedFile(words=WORDS, bits=BITS, kernel=KERNELS[KERNEL])
    file.add(np.arange(1, 21), [pool.picture(draws) for _ in range(20)])
    assert file.nbytes == pytest.approx(large.bytes, rel=0.5)


def test_what_does_not_fit_ends_the_growth(monkeypatch):
    monkeypatch.setattr(very_same_words, "BATCH", 4)
    add = InvertedFile.add

    def full(self, keys, pictures):
        if self.size >= 8:
            raise MemoryError
        add(self, keys, pictures)

    monkeypatch.setattr(InvertedFile, "add", full)
    first, second = grown(growth(), [4, 12, 100], room=2**30)
    assert first.fits and not second.fits
    assert (second.pictures, second.asked, len(second.seconds)) == (8, 12, 0) and math.isnan(second.first)


def test_memory_beyond_the_room_is_refused_and_then_allowed_again():
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with pytest.raises(MemoryError), limited(memory_bytes(os.getpid(), "VmData") + 64 * 2**20):
        np.ones(512 * 2**20 // 8)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    assert np.ones(512 * 2**20 // 8).sum() == 512 * 2**20 // 8


def test_queries_that_cannot_be_read_are_left_out(tmp_path, monkeypatch):
    from landseer.ensemble.inference.contracts import Sizes
    from landseer.ensemble.inference.profile import Profile

    (tmp_path / "bad.png").write_bytes(b"no picture")
    paths = [picture(tmp_path / "good.png", size=200), tmp_path / "bad.png", tmp_path / "none.png"]
    profile = Profile(backbone="b", weights_sha256="", sizes=Sizes(channels=8), long_side=320)
    [one] = query_words(paths, profile)
    assert isinstance(one, Binary) and len(one.words) and one.bits == BITS


def test_there_is_no_pool_without_a_store(tmp_path):
    with pytest.raises(Exception, match="store"):
        stored_pool(tmp_path, seed=0)


# Steps


def test_a_step_that_fails_leaves_the_others():
    written, said, warned = [], [], []
    steps = Steps(
        ["one", "two", "three"],
        after=lambda: written.append(dict(steps.missing)),
        say=said.append,
        warn=warned.append,
    )
    with steps.step("one"):
        raise OpsError("no\nluck")
    with steps.step("two"):
        pass
    assert steps.missing == {"one": "no luck", "three": NOT_REACHED}
    assert warned == ["one: no luck"] and said == ["two: done in 0 s"]
    assert len(written) == 2 and "two" not in written[1]


def test_ctrl_c_is_noted_and_raised():
    written = []
    steps = Steps(["one", "two"], after=lambda: written.append(1), say=print, warn=print)
    with pytest.raises(KeyboardInterrupt), steps.step("one"):
        raise KeyboardInterrupt
    assert steps.missing == {"one": INTERRUPTED, "two": NOT_REACHED} and written == [1]


def test_an_error_of_the_program_is_raised():
    with pytest.raises(KeyError), Steps(["one"], after=lambda: None, say=print, warn=print).step("one"):
        raise KeyError("one")


# The report


def measured():
    one = set_figures()
    one.timed = {
        DEFAULT.name: [found([0], seconds=0.3, rerank=0.04, keypoints=0.08, words=0.01, describe=0.2)] * 4,
        GLOBAL.name: [found([0], seconds=0.2, describe=0.2)] * 4,
    }
    one.others = 0.4
    sample = data().sampled(4, 3)
    one.baseline = Baseline(
        data=sample, orders=[np.array([int(q.shot.path.stem)]) for q in sample.queries], milliseconds=900.0
    )
    stats = StatsResponse(
        pictures=100,
        store_bytes=6_000_000,
        keypoints=KeypointsStats(pictures=100, bytes=2_400_000),
        visual_words=VisualWordsStats(pictures=50, bytes=1_000_000),
    )
    times = np.array([0.1, 0.2, 0.3])
    return Measured(
        libraries=[LibraryFigures(indexed=Indexed(pictures=100, seconds=20.0, unreadable={}), stats=stats)],
        sets=[one],
        rates=Rates(chunk=32, keypoints=np.array([4.0, 4.0]), none=np.array([5.0, 5.0])),
        words=[
            ScaledWords(pictures=1000, bytes=2**30, peak=2**31, seconds=times, first=1.5, asked=1000),
            ScaledWords(pictures=1500, bytes=2**30, peak=2**32, seconds=np.empty(0), first=float("nan"), asked=100_000),
        ],
        pool="the keypoints of 100 pictures",
    )


def test_the_report_has_every_table():
    text = markdown("# Title", measured(), {}, seed=0)
    assert text.startswith("# Title\n") and "Not measured" not in text
    assert text.count("\n## ") == 7
    assert "| default | 8 | 87.5 (" in text and "| none: global descriptor alone | 8 | 50.0 (" in text
    assert "| `sift` | 4 | 100.0 (too few classes)" in text and "Against `sift`" in text
    assert "| `pairs:q,r` | 2 x 4 | 300.0 | 200.0 | 100.0 (100.0 to 100.0) | 200.0 | 80.0 | 10.0 | 40.0 |" in text
    assert "used up to 40% of its cores" in text
    assert "| `pairs:q,r` | 8 | 4 | 40.0 | 40.0 |" in text
    assert "| `pairs:q,r` | 16 | 9 | 88.9 (" in text and "1 such hit in `pairs:q,r`:" in text
    assert "| 100 | 20.0 | 5.00 |" in text and "0.800 (0.800 to 0.800)" in text
    assert "| 100 | 24,000 | 20,000 | 60,000 |" in text
    assert "| 1,000 | 1.00 | 1,073,742 | 2.00 | 200.0 | 290.0 | 1500 |" in text
    assert "**100,000 did not fit**: memory ended after 1,500" in text


def test_an_unfinished_report_says_what_is_missing():
    known = measured()
    known.words, known.rates, known.sets[0].timed, known.sets[0].baseline = [], None, {}, None
    text = markdown("# Title", known, {"words at scale": "interrupted"}, seed=0)
    assert "## Not measured\n\n- words at scale: interrupted" in text
    assert "## Finding" in text and "## What a probability" in text and "`sift` |" not in text
    for gone in ("Time of", "Words at scale", "in turns"):
        assert f"## {gone}" not in text
    assert markdown("# Title", Measured(), {}, seed=0) == "# Title\n"


# The command


def test_the_queries_by_words_are_spread_evenly():
    assert _spread(REFERENCES, 50) == REFERENCES
    assert [path.stem for path in _spread(REFERENCES, 3)] == ["0", "3", "6"]


def test_sizes_are_sorted_and_distinct():
    assert very_same_thing._sizes("300, 100,300") == (100, 300)
    assert very_same_thing._sizes("0") == ()
    for wrong in ("", "0,5", "1e5", "10,x"):
        with pytest.raises(argparse.ArgumentTypeError, match="expected numbers such as"):
            very_same_thing._sizes(wrong)


def test_bad_arguments_are_refused_before_anything_starts(tmp_path, capsys):
    out = ["--out", str(tmp_path / "out.md")]
    assert very_same_thing.main(out) == 1
    assert "--flat pairs:PHOTOS,REFERENCES" in capsys.readouterr().err
    assert very_same_thing.main([*out, "--flat", "pairs:nowhere"]) == 1
    assert "names one folder" in capsys.readouterr().err
    assert not (tmp_path / "out.md").exists()
