from __future__ import annotations

import io
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from shared_files import shared

from landseer.export.datasets.errors import DatasetError
from landseer.export.datasets.photograph import Box, Photograph, Photographs
from landseer.export.datasets.readable import readable
from landseer.export.datasets.readers import READERS, read
from landseer.export.datasets.revisited import ground_truth
from landseer.export.datasets.sfm import sfm_pairs
from landseer.export.datasets.specs import SPECS


def picture(path: Path, size: tuple[int, int] = (8, 8), **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path, **options)
    return path


def labels(found: Photographs, root: Path) -> dict[str, str]:
    return {photograph.path.relative_to(root).as_posix(): photograph.label for photograph in found.photographs}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        picture(tmp_path / "data" / name)
    return tmp_path / "data"


def test_every_reader_is_described_and_every_description_has_a_reader() -> None:
    assert [line.split(":")[0].strip() for line in SPECS.splitlines()] == list(READERS)


def test_data_sets_are_read_without_torch() -> None:
    code = (
        "import sys, landseer.export.datasets.readers, landseer.export.datasets.readable; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_folder_is_a_class(folder: Path) -> None:
    found = read(f"folder:{folder},{folder / 'a'}")
    assert labels(found, folder) == {"a/1.png": "a", "a/2.png": "a", "b/1.png": "b"}
    assert [len(members) for members in found.by_label().values()] == [2, 1]


def test_a_list_names_path_and_class(folder: Path) -> None:
    (folder / "list.csv").write_text("\ufeffPath, Class\nb/1.png,x\n\na/1.png,y\n", encoding="utf-8")
    assert labels(read(f"csv:{folder / 'list.csv'}"), folder) == {"b/1.png": "x", "a/1.png": "y"}


def test_a_list_may_have_boxes_several_lines_to_a_picture(folder: Path) -> None:
    head = "path,class,x0,y0,x1,y1\n"
    lines = "b/1.png,x,0,0.1,0.5,1\nb/1.png,x,0.25,0.25,1.0004,0.75\na/1.png,y,0,0,1,1\n"
    (folder / "list.csv").write_text(head + lines)
    first, second = read(f"csv:{folder / 'list.csv'}").photographs
    assert (first.path, first.label) == (folder / "b/1.png", "x")
    assert first.boxes == (Box(x0=0.0, y0=0.1, x1=0.5, y1=1.0), Box(x0=0.25, y0=0.25, x1=1.0, y1=0.75))
    assert second == Photograph(path=folder / "a/1.png", label="y", boxes=(Box(x0=0.0, y0=0.0, x1=1.0, y1=1.0),))


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("b/1.png,x,0,0,1", "line 2: got '0 0 1'; expected x0 y0 x1 y1 as fractions"),
        ("b/1.png,x,0,0,640,480", "line 2: got '0 0 640 480'; expected x0 y0 x1 y1 as fractions"),
        ("b/1.png,x,0.5,0,0.5,1", "line 2: got '0.5 0 0.5 1'; expected a box with x0 < x1"),
        ("b/1.png,x,0,0,1,1\nb/1.png,y,0,0,1,1", "line 3: b/1.png is listed twice; a picture has one class"),
    ],
)
def test_boxes_of_a_list_that_are_wrong_say_where(folder: Path, lines: str, said: str) -> None:
    (folder / "list.csv").write_text(f"path,class,x0,y0,x1,y1\n{lines}\n")
    with pytest.raises(DatasetError, match=re.escape(said)):
        read(f"csv:{folder / 'list.csv'}")


# GroceryStore


@pytest.fixture
def grocery(tmp_path: Path) -> Path:
    names = {
        "train": ["Fruit/Apple/Golden/1.jpg, 0, 0", "Packages/Milk/Arla/1.jpg, 40, 12"],
        "val": ["Fruit/Apple/Golden/2.jpg, 0, 0"],
        "test": ["Vegetables/Leek/3.jpg, 7, 5"],
    }
    for split, lines in names.items():
        (tmp_path / f"{split}.txt").write_text("".join(f"{split}/{line}\n" for line in lines))
        for line in lines:
            picture(tmp_path / split / line.split(",")[0])
    return tmp_path


def test_grocery_pools_its_splits(grocery: Path) -> None:
    assert labels(read(f"grocery:{grocery}"), grocery) == {
        "train/Fruit/Apple/Golden/1.jpg": "Golden",
        "train/Packages/Milk/Arla/1.jpg": "Arla",
        "val/Fruit/Apple/Golden/2.jpg": "Golden",
        "test/Vegetables/Leek/3.jpg": "Leek",
    }
    assert set(read(f"grocery:{grocery},Fruit,Vegetables").by_label()) == {"Golden", "Leek"}


def test_the_real_grocery_store_has_its_published_sizes() -> None:
    root = shared("data/grocery")
    whole = read(f"grocery:{root}")
    assert (len(whole.photographs), len(whole.by_label())) == (5421, 81)
    packages = read(f"grocery:{root},Packages").by_label()
    training = read(f"grocery:{root},Fruit,Vegetables").by_label()
    assert (len(packages), len(training)) == (31, 50)
    assert not packages.keys() & training.keys()


# retrieval-SfM


CIDS = [f"{number:02x}{'ab' * 12}{number:06x}" for number in range(4)]


def sfm_path(root: Path, cid: str) -> Path:
    return root / "ims" / cid[-2:] / cid[-4:-2] / cid[-6:-4] / cid


def sfm(root: Path, known: object, name: str = "retrieval-SfM-30k.pkl", protocol: int = 2) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(pickle.dumps(known, protocol=protocol))
    return root


def split(cids: list[str], clusters: object, pairs: list[tuple[int, int]]) -> dict[str, object]:
    queries, positives = [list(rows) for rows in zip(*pairs, strict=True)]
    return {"cids": cids, "cluster": clusters, "qidxs": queries, "pidxs": np.array(positives)}


@pytest.fixture
def reconstructions(tmp_path: Path) -> Path:
    known = {"train": split(CIDS[:3], [5, 5, 6], [(0, 1), (1, 2)]), "val": split(CIDS[3:], np.array([5]), [(0, 0)])}
    root = sfm(tmp_path / "retrieval-SfM-30k", known)
    for cid in (CIDS[0], CIDS[1], CIDS[3]):
        path = sfm_path(root, cid)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path, format="JPEG")
    return tmp_path


def test_reconstructions_are_classes_and_missing_photographs_are_told(reconstructions: Path) -> None:
    root = reconstructions / "retrieval-SfM-30k"
    found = read(f"sfm:{reconstructions},retrieval-SfM-30k")
    assert [(one.path, one.label) for one in found.photographs] == [
        (sfm_path(root, CIDS[0]), "train/5"),
        (sfm_path(root, CIDS[1]), "train/5"),
        # The same number in the other split is another reconstruction.
        (sfm_path(root, CIDS[3]), "val/5"),
    ]
    [skipped] = found.skipped
    assert skipped.endswith("missing, listed in retrieval-SfM-30k.pkl, train, cid 2")
    assert set(read(f"sfm:{root},retrieval-SfM-30k,val").by_label()) == {"val/5"}


def test_pairs_are_those_whose_photographs_are_both_there(reconstructions: Path) -> None:
    root = reconstructions / "retrieval-SfM-30k"
    [pair] = sfm_pairs(f"{root},retrieval-SfM-30k,train")
    assert (pair.query, pair.positive) == (sfm_path(root, CIDS[0]), sfm_path(root, CIDS[1]))
    sfm(root, {"cids": CIDS, "qidxs": [1], "pidxs": [3]}, "retrieval-SfM-30k-whiten.pkl")
    [pair] = sfm_pairs(f"{root},retrieval-SfM-30k,whiten")
    assert (pair.query, pair.positive) == (sfm_path(root, CIDS[1]), sfm_path(root, CIDS[3]))


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ([1], "holds a list; expected a retrieval-SfM pickle"),
        ({"train": {}}, "lacks val; expected a retrieval-SfM pickle"),
        ({"train": {"cids": []}, "val": {}}, "train lacks cluster, pidxs, qidxs; expected"),
        ({"train": split(["../../etc/passwd"], [1], [(0, 0)]), "val": {}}, "train, cid 0: got '../../etc/passwd'"),
        ({"train": split(CIDS, [1], [(0, 0)]), "val": {}}, "train, cluster: got 1 numbers; expected 4"),
        ({"train": split(CIDS, [1] * 4, [(0, 4)]), "val": {}}, "train, pidxs: got 4; expected rows of the 4 cids"),
        ({"train": split(CIDS, 7, [(0, 0)]), "val": {}}, "train, cluster: got int; expected a list of integers"),
    ],
)
def test_a_pickle_that_is_no_reconstruction_says_why(tmp_path: Path, known: object, said: str) -> None:
    root = sfm(tmp_path, known)
    with pytest.raises(DatasetError, match=re.escape(said)):
        read(f"sfm:{root},retrieval-SfM-30k")


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return print, ("run",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_never_runs_code(tmp_path: Path, capsys: pytest.CaptureFixture[str], protocol: int) -> None:
    root = sfm(tmp_path, {"train": Evil(), "val": {}}, protocol=protocol)
    with pytest.raises(DatasetError, match=r"it references (builtins|__builtin__)\.print"):
        read(f"sfm:{root},retrieval-SfM-30k")
    assert "run" not in capsys.readouterr().out


@given(st.data())
def test_a_damaged_pickle_is_one_error(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    whole = bytearray(pickle.dumps({"train": split(CIDS, [1] * 4, [(0, 1)]), "val": {}}, protocol=2))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] = data.draw(st.integers(0, 255))
    root = tmp_path_factory.mktemp("sfm")
    (root / "n.pkl").write_bytes(whole[: data.draw(st.integers(1, len(whole)))])
    with pytest.raises(DatasetError):
        read(f"sfm:{root},n")


def test_a_pickle_that_names_no_codec_is_one_error(tmp_path: Path) -> None:
    whole = pickle.dumps({"train": split(CIDS, [1] * 4, [(0, 1)]), "val": {}}, protocol=2)
    (tmp_path / "n.pkl").write_bytes(whole.replace(b"latin1", b"matin1"))
    with pytest.raises(DatasetError, match="unknown encoding: matin1"):
        read(f"sfm:{tmp_path},n")


# Google Landmarks


IDS = ["6e158a47eb2ca3f6", "202cd79556f30760", "3ad87684c99c06e1", "e7f70e9c61e66af3"]


@pytest.fixture
def landmarks(tmp_path: Path) -> Path:
    for name in IDS[:3]:
        picture(tmp_path / "images" / name[0] / name[1] / name[2] / f"{name}.jpg")
    (tmp_path / "train.csv").write_text(
        "id,url,landmark_id\n"
        + f'{IDS[0]},"http://a/b,c.jpg",142820\n{IDS[1]},http://a,104169\n{IDS[2]},http://a,142820\n'
        + f"{IDS[3]},http://a,102611\n0000000000000000,http://a,None\n"
    )
    (tmp_path / "train_clean.csv").write_text(f"landmark_id,images\n142820,{IDS[0]} {IDS[2]}\n104169,{IDS[1]}\n")
    return tmp_path


def test_landmarks_are_found_below_their_first_three_letters(landmarks: Path) -> None:
    found = read(f"gld:{landmarks}/train.csv,{landmarks}/images")
    assert labels(found, landmarks / "images") == {
        f"6/e/1/{IDS[0]}.jpg": "142820",
        f"2/0/2/{IDS[1]}.jpg": "104169",
        f"3/a/d/{IDS[2]}.jpg": "142820",
    }
    [skipped] = found.skipped
    assert skipped.endswith("train.csv, line 5")


def test_the_cleaned_list_and_classes_to_leave_out(landmarks: Path) -> None:
    spec = f"gld:{landmarks}/train_clean.csv,{landmarks}/images"
    assert {label: len(members) for label, members in read(spec).by_label().items()} == {"142820": 2, "104169": 1}
    (landmarks / "out.txt").write_text("# seen in Oxford\n142820  # Radcliffe Camera\n\n")
    assert set(read(f"{spec},without={landmarks}/out.txt").by_label()) == {"104169"}


def test_a_landmark_of_ten_thousand_photographs_is_read(landmarks: Path) -> None:
    names = " ".join(f"{number:016x}" for number in range(10_000))
    (landmarks / "train_clean.csv").write_text(f"landmark_id,images\n1,{names} {IDS[0]}\n")
    found = read(f"gld:{landmarks}/train_clean.csv,{landmarks}/images")
    assert (len(found.photographs), len(found.skipped)) == (1, 10_000)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1: got ''; expected a header id,url,landmark_id (train.csv) or landmark_id,images"),
        ("name,class\na,b\n", "line 1: got 'name,class'; expected a header"),
        ("id,url,landmark_id\nabc,http://a\n", "line 2: got 'abc,http://a'; expected id,url,landmark_id"),
        ("id,url,landmark_id\nabc,http://a,x\n", "line 2: got 'x'; expected a landmark_id, such as 138982"),
        ("id,url,landmark_id\n../a,http://a,1\n", "line 2: got '../a'; expected the id of a picture"),
        ("landmark_id,images\n\n12 ab\n", "line 3: got '12 ab'; expected landmark_id,images"),
        ("landmark_id,images\n12,abc\n13,abc\n", "line 3: abc is listed twice; a picture has one class"),
        ("landmark_id,images\n12,abc\n", "none of its 1 pictures exists, such as"),
    ],
)
def test_a_list_of_landmarks_that_is_wrong_says_where(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(DatasetError, match=re.escape(said)):
        read(f"gld:{tmp_path}/list.csv,{tmp_path}")


def test_a_list_of_classes_to_leave_out_holds_only_classes(landmarks: Path) -> None:
    (landmarks / "out.txt").write_text("142820\nNotre-Dame\n")
    with pytest.raises(DatasetError, match=r"out.txt, line 2: got 'Notre-Dame'; expected a landmark_id"):
        read(f"gld:{landmarks}/train.csv,{landmarks}/images,without={landmarks}/out.txt")


# Boxes


def test_boxes_of_both_layouts_are_the_same_boxes(landmarks: Path) -> None:
    first = f"id,box\n{IDS[0]},0.1 0.2 0.5 0.9\n{IDS[1]},0.0 0.0 1.0 1.0\n{IDS[0]},0.2 0.2 0.3 0.3\n"
    second = "ImageID,Source,LabelName,XMin,XMax,YMin,YMax\n" + "".join(
        f"{name},x,/m/0,{x0},{x1},{y0},{y1}\n"
        for name, y0, x0, y1, x1 in [(IDS[0], 0.1, 0.2, 0.5, 0.9), (IDS[1], 0, 0, 1, 1), (IDS[0], 0.2, 0.2, 0.3, 0.3)]
    )
    for text in (first, second):
        (landmarks / "boxes.csv").write_text(text)
        one, other = read(f"boxes:{landmarks}/boxes.csv,{landmarks}/images").photographs
        assert one.boxes == (Box(x0=0.2, y0=0.1, x1=0.9, y1=0.5), Box(x0=0.2, y0=0.2, x1=0.3, y1=0.3))
        assert other.boxes == (Box(x0=0, y0=0, x1=1, y1=1),)
        assert one.label == other.label == "landmark"


def test_boxes_take_their_classes_from_a_list_of_landmarks(landmarks: Path) -> None:
    (landmarks / "boxes.csv").write_text(
        f"id,box\n{IDS[0]},0.1 0.2 0.5 0.9\n{IDS[2]},0.5 0.5 0.5 0.6\nabcdef,0 0 1 1\n{IDS[3]},0 0 1 1\n"
    )
    found = read(f"boxes:{landmarks}/boxes.csv,{landmarks}/images,labels={landmarks}/train.csv")
    assert [one.label for one in found.photographs] == ["142820"]
    assert [re.sub(r"\S*/", "", line) for line in found.skipped] == [
        f"boxes.csv, line 3: the box of {IDS[2]} has no area",
        "abcdef: train.csv does not name its landmark",
        f"{IDS[3]}.jpg: missing, listed in boxes.csv, line 5",
    ]


def test_pictures_with_boxes_may_lie_in_one_folder(tmp_path: Path) -> None:
    picture(tmp_path / f"{IDS[0]}.jpg")
    (tmp_path / "boxes.csv").write_text(f"id,box\n{IDS[0]},0 0 1 1\n")
    assert read(f"boxes:{tmp_path}/boxes.csv,{tmp_path}").photographs[0].path == tmp_path / f"{IDS[0]}.jpg"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,x\nabc,1\n", "line 1: got 'id,x'; expected a header id,box or ImageID,...,XMin,XMax,YMin,YMax"),
        ("id,box\nabc,0 0 1\n", "line 2: got '0 0 1'; expected ymin xmin ymax xmax"),
        ("id,box\nabc,0 0 1 b\n", "line 2: got '0 0 1 b'; expected ymin xmin ymax xmax"),
        ("id,box\nabc,0 0 480 640\n", "line 2: got '0 0 480 640'; expected ymin xmin ymax xmax as fractions"),
        ("id,box\nabc,0 0 1 nan\n", "line 2: got '0 0 1 nan'; expected"),
        ("id,box\nabc\n", "line 2: got 'abc'; expected id,box"),
    ],
)
def test_boxes_that_are_wrong_say_where(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "boxes.csv").write_text(text)
    with pytest.raises(DatasetError, match=re.escape(said)):
        read(f"boxes:{tmp_path}/boxes.csv,{tmp_path}")


# Revisited Oxford and Paris


@pytest.fixture
def oxford(tmp_path: Path) -> Path:
    truth = {"bbx": [10.0, 20.0, 60.0, 50.0], "easy": [0], "hard": [], "junk": []}
    known = {"imlist": ["gone"], "qimlist": ["asked", "turned", "broken"], "gnd": [truth] * 3}
    (tmp_path / "gnd_roxford5k.pkl").write_bytes(pickle.dumps(known))
    picture(tmp_path / "jpg" / "asked.jpg", (100, 50))
    turned = Image.Exif()
    turned[0x0112] = 6
    picture(tmp_path / "jpg" / "turned.jpg", (100, 200), exif=turned)
    (tmp_path / "jpg" / "broken.jpg").write_bytes(b"x")
    return tmp_path


def test_queries_of_revisited_oxford_come_with_boxes_as_fractions(oxford: Path) -> None:
    found = read(f"revisitop:{oxford},roxford5k")
    assert [(one.path.name, one.label, one.boxes) for one in found.photographs] == [
        ("asked.jpg", "asked", (Box(x0=0.1, y0=0.4, x1=0.6, y1=1.0),)),
        ("turned.jpg", "turned", (Box(x0=0.05, y0=0.2, x1=0.3, y1=0.5),)),
    ]
    [skipped] = found.skipped
    assert "broken.jpg: cannot identify" in skipped


@pytest.mark.parametrize(("name", "references"), [("roxford5k", 4993), ("rparis6k", 6322)])
def test_the_official_ground_truth_is_read(name: str, references: int) -> None:
    root = shared("data/revisitop")
    truth = ground_truth(f"{root},{name}")
    assert (len(truth.references), len(truth.queries)) == (references, 70)
    with pytest.raises(DatasetError, match=r"70 of 70 photographs are missing from .*jpg"):
        read(f"revisitop:{root},{name}")


@pytest.mark.parametrize(
    ("truth", "said"),
    [
        ({"bbx": [1, 2, 3, 4], "easy": [0], "hard": []}, "query asked lacks junk; expected a ground truth"),
        ({"bbx": [1, 2, 3], "easy": [0], "hard": [], "junk": []}, "query asked: not enough values"),
        ({"bbx": [1, 2, 3, 4], "easy": [1], "hard": [], "junk": []}, "query asked: got reference 1; there are 1"),
    ],
)
def test_a_ground_truth_that_is_wrong_says_where(oxford: Path, truth: dict[str, object], said: str) -> None:
    known = {"imlist": ["gone"], "qimlist": ["asked"], "gnd": [truth]}
    (oxford / "gnd_roxford5k.pkl").write_bytes(pickle.dumps(known))
    with pytest.raises(DatasetError, match=re.escape(said)):
        read(f"revisitop:{oxford},roxford5k")


# What can be decoded


def test_what_cannot_be_decoded_is_skipped_with_the_reason(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    whole = io.BytesIO()
    Image.fromarray(noise).save(whole, format="JPEG")
    (tmp_path / "whole.jpg").write_bytes(whole.getvalue())
    (tmp_path / "short.jpg").write_bytes(whole.getvalue()[:-2000])
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_bytes(b"no picture")
    names = ("whole.jpg", "short.jpg", "empty.jpg", "text.jpg", "gone.jpg")
    photographs = tuple(Photograph(path=tmp_path / name, label="x") for name in names)
    told: list[None] = []
    found = readable(Photographs(name="n", photographs=photographs, skipped=("before",)), lambda: told.append(None))
    assert found.photographs == photographs[:1]
    assert len(told) == 5
    assert [line.removeprefix(f"{tmp_path}/").partition(": ")[0] for line in found.skipped] == ["before", *names[1:]]
    assert "truncated" in found.skipped[1]
    assert found.skipped[-1].endswith("No such file or directory")
    with pytest.raises(DatasetError, match="none of 4 pictures can be decoded"):
        readable(Photographs(name="n", photographs=photographs[1:]))


def test_the_real_grocery_store_can_be_decoded() -> None:
    found = read(f"grocery:{shared('data/grocery')},Packages")
    some = Photographs(name=found.name, photographs=found.photographs[::20])
    assert readable(some, threads=1) == some


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("nothing", "cannot read 'nothing' as a data set; expected one of"),
        ("zip:a", "cannot read 'zip:a' as a data set"),
        ("folder:{}/gone", "gone is not a folder"),
        ("csv:{}/gone.csv", "cannot read"),
        ("csv:{}/empty.csv", "lists no pictures"),
        ("csv:{}/twice.csv", "twice.csv, line 2: a/1.png is listed twice; a picture has one class"),
        ("csv:{}/missing.csv", "missing.csv, line 1: no picture at"),
        ("grocery:{}", "cannot read"),
        ("sfm:{}", "expected sfm:ROOT,NAME"),
        ("sfm:{},name,test", "split one of train, val"),
        ("sfm:{},name", "no name.pkl in"),
        ("gld:{}", "expected gld:CSV,IMAGES"),
        ("gld:{},b,else=c", "expected gld:CSV,IMAGES or gld:CSV,IMAGES,without=FILE"),
        ("boxes:{}", "expected boxes:CSV,IMAGES"),
        ("revisitop:{}", "is incomplete"),
    ],
)
def test_what_cannot_be_read_says_why(folder: Path, spec: str, said: str) -> None:
    (folder / "empty.csv").write_text("path,class\n")
    (folder / "twice.csv").write_text("a/1.png,x\na/1.png,y\n")
    (folder / "missing.csv").write_text("gone.png,x\n")
    with pytest.raises(DatasetError, match=re.escape(said)):
        read(spec.format(folder))


def test_a_part_of_grocery_that_is_not_there_is_named(grocery: Path) -> None:
    with pytest.raises(DatasetError, match=r"has no part Fish; it has Fruit, Packages, Vegetables"):
        read(f"grocery:{grocery},Fish")
    with (grocery / "val.txt").open("a") as stream:
        stream.write("val/Fruit/1.jpg, 0\n")
    with pytest.raises(DatasetError, match=r"val.txt, line 2: got 'val/Fruit/1.jpg, 0'; expected SPLIT/PART"):
        read(f"grocery:{grocery}")
