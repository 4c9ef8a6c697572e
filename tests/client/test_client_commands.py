from __future__ import annotations

import io
import json
import os
import unicodedata
from pathlib import Path

import pytest

from landseer.client.uploads import Upload
from landseer.v1.common_pb2 import Degradation, Heatmap, StageTiming
from landseer.v1.index_pb2 import Picture
from landseer.v1.search_pb2 import (
    EXPANSION_METHOD_LATTQE,
    FIRST_STAGE_BOTH,
    FIRST_STAGE_UNSPECIFIED,
    FIRST_STAGE_WORDS,
    GROUPING_NEAR_IDENTICAL,
    GROUPING_NONE,
    GROUPING_UNSPECIFIED,
    RERANKING_METHOD_COATTENTION,
    RERANKING_METHOD_SPATIAL,
    RERANKING_METHOD_UNSPECIFIED,
    Hit,
    Point,
    SearchResponse,
    StageScores,
    Verification,
)


def test_index_a_folder(run, fake, photos: Path) -> None:
    status, out, err = run("index", "photos", "--metadata", "shop=north", "--prefix", "x/")
    assert (status, err) == (0, "")
    assert "indexed 3 of 3 pictures in" in out
    assert "1 other file ignored (--verbose names them)" in out
    assert sorted(fake.pictures) == ["x/photos/a.jpg", "x/photos/b.PNG", "x/photos/deep/a.jpg"]
    assert dict(fake.pictures["x/photos/a.jpg"].metadata) == {
        "shop": "north",
        "path": str(photos / "a.jpg"),
        "file_version": f"8-{(photos / 'a.jpg').stat().st_mtime_ns}",
    }


def test_index_reports_failures_and_indexes_the_rest(run, fake, photos: Path) -> None:
    fake.judge = lambda picture: (3, "picture.image: not a picture") if picture.id.endswith("PNG") else None
    status, out, _ = run("index", "photos")
    assert status == 1
    assert "indexed 2 of 3 pictures" in out
    assert "not indexed: photos/b.PNG: picture.image: not a picture" in out


def test_index_json(run, fake, photos: Path) -> None:
    fake.judge = lambda picture: (3, "not a picture") if picture.id.endswith("PNG") else None
    status, out, _ = run("index", "photos", "--json")
    told = json.loads(out)
    assert told.pop("seconds") >= 0
    bad = {"id": "photos/b.PNG", "path": str(photos / "b.PNG"), "code": "INVALID_ARGUMENT", "message": "not a picture"}
    counts = {"found": 3, "indexed": 2, "replaced": 0, "skipped": 0, "not_sent": 0}
    ignored = [{"path": str(photos / "notes.txt"), "reason": "no picture, by its name and its first bytes"}]
    others = {"failed": [bad], "ignored": ignored, "linked_folders": 0, "error": None}
    assert (status, told) == (1, counts | others)


def test_index_names_what_it_cannot_read_and_indexes_the_rest(run, fake, photos: Path) -> None:
    (photos / os.fsdecode(b"\xff.jpg")).write_bytes(b"x")
    status, out, err = run("index", "photos", "gone", os.fsdecode(b"\xe9.jpg"), "--prefix", "x/")
    assert (status, err) == (1, "")
    assert "indexed 3 of 3 pictures" in out and "3 failed" in out
    assert "not indexed: x/gone: there is no such file or folder; check the path" in out
    assert "the name is not UTF-8: b'photos/\\xff.jpg'; rename the file" in out
    assert len(fake.pictures) == 3
    status, out, _ = run("index", "photos", "gone", "--json")
    told = json.loads(out)
    assert (status, told["indexed"], [bad["id"] for bad in told["failed"]]) == (1, 3, ["gone", "photos/\udcff.jpg"])


def test_index_names_ignored_files(run, fake, photos: Path) -> None:
    line = "ignored: photos/notes.txt: no picture, by its name and its first bytes\n"
    status, out, err = run("index", "photos", "--verbose")
    assert (status, err) == (0, line)
    assert out.endswith(", 1 other file ignored\n")
    status, _, err = run("index", "photos/notes.txt", "--verbose")
    assert status == 1 and err.startswith(line) and err.endswith(" or the first bytes of a picture\n")


def test_index_follows_links_to_folders(run, fake, photos: Path) -> None:
    (photos.parent / "real").mkdir()
    (photos.parent / "real" / "c.jpg").write_bytes(b"x")
    (photos / "link").symlink_to("../real")
    _, out, _ = run("index", "photos")
    assert "indexed 4 of 4 pictures" in out and "1 link to folders followed" in out


BYTES = os.fsdecode(b"\xff")


@pytest.mark.parametrize(
    "arguments",
    [
        ["index", "photos", "--prefix", BYTES],
        ["index", "photos", "--metadata", f"shop={BYTES}"],
        ["search", "--id", BYTES],
        ["search", BYTES],
        ["search", "photos/a.jpg", "--html", f"{BYTES}/a.html"],
        ["get", BYTES],
        ["delete", BYTES],
        ["stats", "--server", BYTES],
        [BYTES],
    ],
)
def test_arguments_that_are_not_utf8_get_one_line(run, fake, photos: Path, arguments: list[str]) -> None:
    status, out, err = run(*arguments)
    assert (status, out, err.count("\n")) == (1, "", 1), err
    assert "Traceback" not in err and not fake.pictures


def test_index_resumes_after_an_interruption(run, fake, photos: Path, monkeypatch) -> None:
    for number in range(20):
        (photos / f"{number}.jpg").write_bytes(b"x")
    settle, chunks = Upload._settle, []

    async def interrupted(self, chunk):
        if chunks:
            raise KeyboardInterrupt
        chunks.append(chunk)
        await settle(self, chunk)

    monkeypatch.setattr(Upload, "_settle", interrupted)
    status, _, err = run("index", "photos", "--concurrency", "1")
    assert status == 130
    assert err == "warning: interrupted after 16 of 23 pictures; run it again with --skip-indexed to resume\n"
    monkeypatch.setattr(Upload, "_settle", settle)
    status, out, _ = run("index", "photos", "--skip-indexed")
    assert status == 0
    assert "indexed 7 of 23 pictures" in out
    assert "16 already indexed" in out
    assert len(fake.pictures) == 23


def test_an_index_run_that_cannot_continue_prints_one_line(run, fake, photos: Path, monkeypatch) -> None:
    fake.fail("UpsertMany", "FAILED_PRECONDITION", "made by other models", reason="PROFILE_MISMATCH", times=9)
    status, out, err = run("index", "photos")
    assert (status, out, err) == (1, "", "landseer index: made by other models\n")


LOADING = {"code": "UNAVAILABLE", "message": "the index is being loaded", "reason": "INDEX_LOADING"}
COMMANDS = [
    ("index", "photos"),
    ("search", "photos/a.jpg"),
    ("get", "photos/a.jpg"),
    ("delete", "photos/a.jpg"),
    ("stats",),
]
FIRST_CALLS = {"index": "Stats", "search": "Search", "get": "Get", "delete": "Delete", "stats": "Stats"}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_commands_wait_for_a_server_that_is_still_loading(run, fake, photos: Path, command: tuple[str, ...]) -> None:
    run("index", "photos")
    # More than gRPC tries by itself.
    fake.fail(FIRST_CALLS[command[0]], **LOADING, times=6)
    status, out, err = run(*command, "--patience", "20")
    assert status == 0 and out and err.startswith("retrying for up to 20 s: the index is being loaded\n")
    assert err.count("retrying") == 1


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_commands_do_not_wait_longer_than_they_were_told(run, fake, photos: Path, command: tuple[str, ...]) -> None:
    run("index", "photos")
    fake.fail(FIRST_CALLS[command[0]], **LOADING, times=99)
    status, out, err = run(*command, "--patience", "0")
    assert (status, out, err) == (1, "", f"landseer {command[0]}: the index is being loaded\n")
    with pytest.raises(SystemExit):
        run(*command, "--patience", "-1")


def test_index_errors(run, photos: Path) -> None:
    assert run("index", "photos/notes.txt")[2].startswith("landseer index: no pictures in photos/notes.txt")
    assert run("index", "gone")[2] == (
        "landseer index: no pictures: gone: there is no such file or folder; check the path\n"
    )
    with pytest.raises(SystemExit):
        run("index", "photos", "--metadata", "novalue")
    status, _, err = run("index", "photos", "--server", "unix:/nowhere/s")
    assert status == 1
    assert err.count("\n") == 1
    assert "landseer up" in err


def test_search_prints_a_table(run, fake, photos: Path) -> None:
    run("index", "photos")
    status, out, err = run("search", "photos/a.jpg", "--top-k", "2", "--box", "1,2,3,4")
    assert (status, err) == (0, "")
    first = next(line for line in out.splitlines() if "photos/a.jpg" in line)
    assert first.split() == ["1", "1.0000", "1.0000", "photos/a.jpg"]
    assert "3 pictures searched; total 70 ms" in out
    sent = fake.requests["Search"][0]
    assert (sent.image[:3], sent.top_k, sent.region.width, sent.explain) == (b"\xff\xd8\xff", 2, 3, False)


def test_search_passes_every_choice_on(run, fake, photos: Path) -> None:
    run(
        *("search", "--id", "photos/a.jpg", "--expansion", "lattqe", "--neighbours", "5", "--allow-untrained"),
        *("--rerank", "coattention", "--candidates", "7", "--weight", "0.25"),
    )
    sent = fake.requests["Search"][0]
    assert sent.id == "photos/a.jpg"
    assert (sent.expansion.method, sent.expansion.neighbours) == (EXPANSION_METHOD_LATTQE, 5)
    assert sent.expansion.allow_untrained
    assert (sent.reranking.method, sent.reranking.candidates) == (RERANKING_METHOD_COATTENTION, 7)
    assert sent.reranking.weight == 0.25


def test_search_shows_inliers_as_whole_numbers(run, fake, photos: Path) -> None:
    verified = Hit(id="a", score=31.9, scores=StageScores(inliers=31, **{"global": 0.8}))
    fake.answer = SearchResponse(hits=[verified, Hit(id="b", score=0.5)], index_size=2)
    _, out, _ = run("search", "photos/a.jpg", "--rerank", "spatial", "--candidates", "20")
    sent = fake.requests["Search"][0]
    assert (sent.reranking.method, sent.reranking.candidates) == (RERANKING_METHOD_SPATIAL, 20)
    assert not sent.reranking.HasField("weight") and not sent.reranking.require_shared_words
    assert sent.first_stage == FIRST_STAGE_UNSPECIFIED
    rows = [line.split() for line in out.splitlines()]
    assert ["1", "31.9000", "0.8000", "31", "a"] in rows and ["2", "0.5000", "b"] in rows


def test_search_shows_how_sure_verification_is(run, fake, photos: Path) -> None:
    corners = [Point(x=1.5, y=2)] * 4
    sure = Hit(id="a", score=31.9, scores=StageScores(inliers=31, **{"global": 0.8}))
    sure.verification.CopyFrom(Verification(inliers=31, probability=0.987, outline=corners))
    unsure = Hit(id="b", score=0.8, scores=StageScores(inliers=0, **{"global": 0.7}))
    unsure.verification.probability = 0.031
    fake.answer = SearchResponse(hits=[sure, unsure, Hit(id="c", score=0.7)], index_size=3)
    rows = [line.split() for line in run("search", "photos/a.jpg")[1].splitlines()]
    assert rows[0] == ["rank", "score", "same", "global", "inliers", "id"]
    assert ["1", "31.9000", "99%", "0.8000", "31", "a"] in rows
    assert ["2", "0.8000", "3%", "0.7000", "0", "b"] in rows and ["3", "0.7000", "c"] in rows
    told = json.loads(run("search", "photos/a.jpg", "--json")[1])["hits"]
    assert told[0]["verification"]["outline"][3] == {"x": 1.5, "y": 2}

    unsure.verification.probability = 0.96
    unsure.verification.via.id = "a"
    fake.answer = SearchResponse(hits=[sure, unsure], index_size=3)
    rows = [line.split() for line in run("search", "photos/a.jpg")[1].splitlines()]
    assert rows[0] == ["rank", "score", "same", "global", "inliers", "id", "via"]
    assert ["1", "31.9000", "99%", "0.8000", "31", "a"] in rows
    assert ["2", "0.8000", "96%", "0.7000", "0", "b", "a"] in rows
    assert "verification" not in told[2]


def test_search_shows_patches_where_any_agree(run, fake, photos: Path) -> None:
    seen = Hit(id="a", score=1.5, scores=StageScores(inliers=0, **{"global": 0.8}))
    seen.verification.CopyFrom(Verification(probability=0.001, patches=61))
    unseen = Hit(id="b", score=-7.5, scores=StageScores(inliers=0, **{"global": 0.7}))
    unseen.verification.probability = 0.001
    fake.answer = SearchResponse(hits=[seen, unseen, Hit(id="c", score=-9)], index_size=3)
    rows = [line.split() for line in run("search", "photos/a.jpg")[1].splitlines()]
    assert rows[0] == ["rank", "score", "same", "global", "inliers", "patches", "id"]
    assert ["1", "1.5000", "0%", "0.8000", "0", "61", "a"] in rows
    assert ["2", "-7.5000", "0%", "0.7000", "0", "0", "b"] in rows and ["3", "-9.0000", "c"] in rows
    assert json.loads(run("search", "photos/a.jpg", "--json")[1])["hits"][0]["verification"]["patches"] == 61


def test_search_shows_copies_of_one_photograph_as_one_hit(run, fake, photos: Path) -> None:
    fake.answer = SearchResponse(hits=[Hit(id="a", score=2, near_identical=["a-small", "a-cut"]), Hit(id="b", score=1)])
    rows = [line.split() for line in run("search", "photos/a.jpg", "--group-by", "near-identical")[1].splitlines()]
    assert rows[0] == ["rank", "score", "near-identical", "id"]
    assert ["1", "2.0000", "+2", "a"] in rows and ["2", "1.0000", "b"] in rows
    told = json.loads(run("search", "photos/a.jpg", "--group-by", "none", "--json")[1])["hits"]
    assert told[0]["near_identical"] == ["a-small", "a-cut"]
    run("search", "photos/a.jpg")
    asked = [sent.group_by for sent in fake.requests["Search"]]
    assert asked == [GROUPING_NEAR_IDENTICAL, GROUPING_NONE, GROUPING_UNSPECIFIED]


def test_search_leaves_the_server_its_choice(run, fake, photos: Path) -> None:
    run("search", "photos/a.jpg")
    run("search", "photos/a.jpg", "--candidates", "300", "--first-stage", "both")
    bare, more = fake.requests["Search"]
    assert bare.first_stage == FIRST_STAGE_UNSPECIFIED and not bare.HasField("reranking")
    assert (more.reranking.method, more.reranking.candidates) == (RERANKING_METHOD_UNSPECIFIED, 300)
    assert more.first_stage == FIRST_STAGE_BOTH


def test_search_by_words_with_a_word_filter(run, fake, photos: Path) -> None:
    fake.answer = SearchResponse(hits=[Hit(id="a", score=0.4, scores=StageScores(words=0.4))], index_size=2)
    how = ("--first-stage", "words", "--rerank", "spatial", "--shared-words", "3")
    _, out, _ = run("search", "photos/a.jpg", *how)
    sent = fake.requests["Search"][0]
    assert (sent.first_stage, sent.reranking.require_shared_words) == (FIRST_STAGE_WORDS, 3)
    assert "words" in out.splitlines()[0] and "0.4000" in out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["gone.jpg"], "there is no file gone.jpg; give the path of a picture"),
        (["photos"], "photos is a folder; give the path of one picture"),
        (["--id", "a", "--box", "1,2,3,4"], "--box needs IMAGE; it does not work with --id"),
        (["photos/a.jpg", "--neighbours", "3"], "--neighbours needs --expansion"),
        (["photos/a.jpg", "--expansion", "aqe", "--allow-untrained"], "--allow-untrained needs --expansion lattqe"),
        (["photos/a.jpg", "--expansion", "aqe", "--alpha", "2"], "--alpha needs --expansion alphaqe"),
        (["photos/a.jpg", "--weight", "0"], "--weight needs --rerank coattention"),
        (["photos/a.jpg", "--rerank", "spatial", "--weight", "1"], "--weight needs --rerank coattention"),
        (
            ["photos/a.jpg", "--rerank", "none", "--candidates", "5"],
            "--candidates and --shared-words do not work with --rerank none",
        ),
        (
            ["photos/a.jpg", "--html", "gone/out.html"],
            "cannot write gone/out.html: the folder {here}/gone does not",
        ),
    ],
)
def test_search_errors(run, photos: Path, arguments: list[str], line: str) -> None:
    status, out, err = run("search", *arguments)
    assert (status, out) == (1, "")
    assert err.startswith(f"landseer search: {line.format(here=Path.cwd())}")
    assert err.count("\n") == 1


def test_search_box_must_be_four_numbers(run, photos: Path, capsys) -> None:
    with pytest.raises(SystemExit):
        run("search", "photos/a.jpg", "--box", "1,2,3")
    assert "got '1,2,3'; expected four numbers x,y,width,height" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "values", "expected"),
    [
        ("--top-k", ("abc", "0", "-1", "1.5", ""), "a whole number of at least 1"),
        ("--timeout", ("abc", "0", "inf", "nan", ""), "a number of seconds above 0"),
        ("--patience", ("abc", "-1", "inf", "nan", ""), "a number of seconds, 0 or more"),
    ],
)
def test_numbers_out_of_range_say_what_was_expected(run, option: str, values: tuple[str, ...], expected: str, capsys):
    for value in values:
        with pytest.raises(SystemExit):
            run("search", "photos/a.jpg", f"{option}={value}")
        assert f"got {value!r}; expected {expected} " in capsys.readouterr().err


def test_search_warns_and_shows_hostile_ids_as_text(run, fake, photos: Path) -> None:
    fake.answer = SearchResponse(
        hits=[Hit(id="[red]x\x1b[2J", score=0.5)],
        index_size=1,
        degradations=[Degradation(stage="rerank", reason="no time was left")],
        untrained=["lattqe"],
    )
    _, out, err = run("search", "photos/a.jpg")
    assert "[red]x\N{REPLACEMENT CHARACTER}[2J" in out
    assert "\x1b" not in out
    assert "warning: rerank was skipped: no time was left" in err
    assert "warning: results depend on models with random, untrained weights: lattqe" in err


def test_search_reads_standard_input(run, fake, photos: Path, monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a picture")))
    status, _, err = run("search", "-", "--box", "1,2,3,4", "--html", "out.html")
    assert (status, err) == (0, "")
    assert fake.requests["Search"][0].image == b"a picture"
    assert "standard input" in Path("out.html").read_text(encoding="utf-8")
    Path("-").write_bytes(b"x")
    run("search", "./-")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert "got nothing on standard input" in run("search", "-")[2]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(bytes(11))))
    monkeypatch.setattr("landseer.client.queries.MOST_FROM_STDIN", 10)
    assert "got more than 10 B on standard input" in run("search", "-")[2]


def test_index_tells_what_to_do_with_an_address(run, photos: Path) -> None:
    assert "only files are indexed: download it, then index the file" in run("index", "https://example.org/a.jpg")[2]


def test_decomposed_ids_find_composed_ones(run, fake) -> None:
    one, two = (unicodedata.normalize(form, "Café") for form in ("NFC", "NFD"))
    fake.pictures[one] = Picture(id=one)
    assert run("get", two)[0] == 0
    assert run("delete", two)[0] == 0 and not fake.pictures
    assert run("delete", two)[0] == 1 and run("get", two)[0] == 1
    fake.pictures |= {one: Picture(id=one), two: Picture(id=two)}  # Of a store from before.
    assert run("delete", two)[0] == 0 and set(fake.pictures) == {one}


def test_search_an_empty_index(run, photos: Path) -> None:
    assert "no hits: the index is empty; add pictures with `landseer index`" in run("search", "photos/a.jpg")[1]


def test_search_json_has_numbers_and_no_thumbnails(run, fake, photos: Path) -> None:
    hit = Hit(id="a", score=0.5, metadata={"thumbnail": "kept"})
    hit.explanation.thumbnail = b"jpeg"
    hit.explanation.coattention.CopyFrom(Heatmap(width=1, height=1, values=[0.25]))
    fake.answer = SearchResponse(
        hits=[hit], index_size=2**40, timings=[StageTiming(stage="total", seconds=0.5)], untrained=["lattqe"]
    )
    status, out, err = run("search", "photos/a.jpg", "--json")
    told = json.loads(out)
    assert (status, err) == (0, "")
    assert told["index_size"] == 2**40
    assert told["hits"][0]["metadata"] == {"thumbnail": "kept"}
    assert "thumbnail" not in told["hits"][0]["explanation"]
    assert told["hits"][0]["explanation"]["coattention"] == {"height": 1, "width": 1, "values": [0.25]}
    assert told["degradations"] == []


@pytest.mark.parametrize("query", [["photos/a.jpg"], ["--id", "photos/a.jpg"]])
def test_search_writes_the_page(run, fake, photos: Path, query: list[str]) -> None:
    run("index", "photos")
    status, out, _ = run("search", *query, "--html", "out.html")
    assert (status, "wrote out.html" in out) == (0, True)
    assert fake.requests["Search"][-1].explain
    assert "photos/deep/a.jpg" in Path("out.html").read_text()


def test_stats(run, fake) -> None:
    status, out, err = run("stats")
    assert status == 0
    assert "lite0" in out
    assert "4.0 KiB" in out
    assert "untrained weights: whitening\n" in err
    told = json.loads(run("stats", "--json")[1])
    assert (told["store_bytes"], told["untrained"], told["pictures"]) == (4096, ["whitening", "lattqe"], 0)


def test_get_and_delete(run, fake) -> None:
    fake.pictures["a"] = Picture(id="a", metadata={"k": "v"})
    _, out, _ = run("get", "a")
    assert "640 by 480 px" in out
    assert "metadata k" in out
    told = json.loads(run("get", "a", "--json", "--vectors")[1])
    assert (told["id"], told["metadata"], told["sequence"]) == ("a", {"k": "v"}, 7)
    assert "thumbnail" not in told
    assert fake.requests["Get"][-1].include_vectors
    assert run("delete", "a", "z") == (1, "deleted a\nnot indexed: z\n", "")
    assert json.loads(run("delete", "z", "--json")[1]) == {"deleted": [], "not_indexed": ["z"]}
    assert run("get", "a")[2] == "landseer get: no picture 'a' is indexed\n"


def test_the_server_option_wins_over_the_variable(run, fake, monkeypatch) -> None:
    monkeypatch.setenv("LANDSEER_SERVER", "unix:/nowhere/s")
    assert run("stats", "--server", fake.address)[0] == 0
    assert "/nowhere/s" in run("stats")[2]


@pytest.mark.parametrize("command", ["index", "search", "stats", "get", "delete"])
def test_every_command_documents_its_json(run, capsys, command: str) -> None:
    with pytest.raises(SystemExit) as left:
        run(command, "--help")
    shown = capsys.readouterr().out
    assert left.value.code == 0
    assert "JSON:\n  " in shown
    assert "LANDSEER_SERVER" in shown
