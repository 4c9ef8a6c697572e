from __future__ import annotations

from types import SimpleNamespace

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from landseer.ensemble.errors import InvalidInput
from landseer.ops.bulk.contents import contents


@pytest.fixture
def shaky(monkeypatch):
    """A picture from afar, on a line that fails as often as it is told to."""
    read, line = MemoryFileSystem.cat_file, SimpleNamespace(failing=0)

    def cat_file(self, path, **options):
        if line.failing:
            line.failing -= 1
            raise RuntimeError("the line is shaky")
        return read(self, path, **options)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", cat_file)
    MemoryFileSystem().pipe_file("/a.jpg", b"from afar")
    yield line
    MemoryFileSystem().rm("/a.jpg")


def test_pictures_come_in_order_and_each_fails_alone(tmp_path):
    names = [f"{number}.jpg" for number in range(20)]
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "3.jpg").unlink()
    (tmp_path / "5.jpg").write_bytes(bytes(100))
    found = list(contents([str(tmp_path / name) for name in names], most=99))
    with pytest.raises(InvalidInput, match="image: cannot read it: No such file or directory"):
        found[3].result()
    with pytest.raises(InvalidInput, match="image: got more than 99 bytes"):
        found[5].result()
    good = [number for number in range(20) if number not in (3, 5)]
    assert [found[number].result() for number in good] == [names[number].encode() for number in good]


def test_what_may_have_failed_by_chance_is_tried_again(shaky):
    shaky.failing = 2
    [found] = contents(["memory://a.jpg"], most=99, pauses_s=(0.0, 0.0))
    assert found.result() == b"from afar"
    shaky.failing = 3
    [found] = contents(["memory://a.jpg"], most=99, pauses_s=(0.0, 0.0))
    with pytest.raises(InvalidInput, match="image: cannot read it: the line is shaky"):
        found.result()
    assert shaky.failing == 0
