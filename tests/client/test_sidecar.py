"""Metadata of many pictures from one file."""

from __future__ import annotations

from pathlib import Path

import pytest

from landseer.client.errors import UnusableInput
from landseer.client.picture_files import PictureFile
from landseer.client.sidecar import read_sidecar
from landseer.ops.bulk.sources import BulkPicture


def of(sidecar, id, path="/nowhere/x.jpg"):
    return dict(sidecar.of(PictureFile(id=id, path=Path(path))))


def test_a_table_names_pictures_by_id(tmp_path: Path) -> None:
    file = tmp_path / "meta.csv"
    file.write_text(
        '\ufeffid,place,year,tags\na.jpg,"Ely, Cambs",1083,"[""gothic""]"\nb.jpg,,1176,\n', encoding="utf-8"
    )
    found = read_sidecar(file)
    assert of(found, "a.jpg") == {"place": "Ely, Cambs", "year": "1083", "tags": '["gothic"]'}
    assert of(found, "b.jpg") == {"year": "1176"} and of(found, "c.jpg") == {}
    pictures = [PictureFile(id="a.jpg", path=tmp_path / "a.jpg")]
    assert found.unused(pictures) == 1


def test_lines_of_json_name_pictures_by_path_and_their_values_become_texts(tmp_path: Path) -> None:
    file = tmp_path / "meta.jsonl"
    file.write_text(
        '{"path": "sub/../a.jpg", "year": 1990, "good": true, "tags": ["é", "b"], "none": null, "share": 0.5}\n\n'
        '{"id": "x", "path": "", "place": "Ely"}\n{"id": "x", "place": "Wells"}\n'
    )
    found = read_sidecar(file)
    expected = {"year": "1990", "good": "true", "tags": '["é", "b"]', "share": "0.5"}
    assert of(found, "any", str(tmp_path / "a.jpg")) == expected
    assert of(found, "x", str(tmp_path / "a.jpg")) == expected | {"place": "Wells"}


def test_a_path_may_be_a_url(tmp_path: Path) -> None:
    file = tmp_path / "meta.csv"
    file.write_text("path,place\ns3://bucket/a.jpg,Ely\n")
    one = BulkPicture(id="s3://bucket/a.jpg", absolute="s3://bucket/a.jpg", version="")
    found = read_sidecar(file)
    assert dict(found.of(one)) == {"place": "Ely"} and found.unused([one]) == 0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("meta.txt", "", "expected a file that ends in .csv, .jsonl or .ndjson"),
        ("meta.csv", "id,a\nx,1,2\n", "line 2: more cells than the first line has names"),
        ("meta.csv", "name,a\nx,1\n", "line 2: expected an `id` or a `path`, got neither"),
        ("meta.jsonl", '{"id": "a", "path": "b"}', "line 1: expected an `id` or a `path`, got id and path"),
        ("meta.jsonl", '{"id": "a"}\n[1]', "line 2: expected a JSON object"),
        ("meta.jsonl", "{", "line 1: expected a JSON object"),
        ("meta.jsonl", '{"id": "a", "b": {"c": 1}}', "line 1: b: expected a text, a number, true, false or a list"),
        ("meta.jsonl", '{"id": "a", "b": "\\ud800"}', r"line 1: b: got \\ud800, which is not valid UTF-8"),
        ("meta.jsonl", '{"id": "a", "b": ["\\ud800"]}', r"line 1: b: got .*, which is not valid UTF-8"),
        ("meta.jsonl", '{"id": "a", "\\ud800": ""}', "line 1: got .*, which is not valid UTF-8"),
        ("meta.csv", b"id,a\nx,\xff\n", "is not UTF-8"),
        ("gone.csv", None, "cannot read .*gone.csv: No such file"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, name: str, content: str | bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UnusableInput, match=message):
        read_sidecar(tmp_path / name)


def test_index_sends_what_the_file_says(run, fake, photos: Path) -> None:
    (photos / "meta.csv").write_text("path,year,shop\na.jpg,1990,south\ngone.jpg,1,\n")
    status, _, err = run("index", "photos", "--metadata", "shop=north", "--metadata-file", "photos/meta.csv")
    assert status == 0 and "1 row of photos/meta.csv name no picture that was found" in err
    first, other = (dict(fake.pictures[id].metadata) for id in ("photos/a.jpg", "photos/b.PNG"))
    assert (first["year"], first["shop"], other["shop"]) == ("1990", "south", "north") and "year" not in other
    status, _, err = run("index", "photos", "--metadata-file", "photos/meta.txt")
    assert status != 0 and "expected a file that ends in .csv" in err
