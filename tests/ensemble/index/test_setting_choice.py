"""Which main index a collection gets."""

import pytest

from landseer.ensemble.config import ServerConfig
from landseer.ensemble.index.index_setting import IndexSetting
from landseer.ensemble.index.setting_choice import (
    EXACT,
    EXACT_BELOW,
    LARGE,
    TUNED,
    WHOLE,
    parsed,
    setting_for,
    write_tuned,
)


def chosen(size, folder, index="", dimension=64):
    return setting_for(size, ServerConfig(store=folder, index=index), dimension=dimension)


def test_the_default_depends_on_the_size_and_on_the_number_of_values(tmp_path):
    assert chosen(0, tmp_path) == chosen(EXACT_BELOW - 1, tmp_path) == EXACT
    assert chosen(EXACT_BELOW, tmp_path, dimension=1280) == LARGE
    assert chosen(EXACT_BELOW, tmp_path, dimension=64) == WHOLE


def test_a_tuned_setting_counts_more_and_a_named_one_most(tmp_path):
    found = IndexSetting(factory="SQfp16")
    assert write_tuned(tmp_path, found) == tmp_path / TUNED
    assert [file.name for file in tmp_path.iterdir()] == [TUNED]
    assert chosen(10**6, tmp_path) == found
    assert chosen(10**6, tmp_path, "HNSW16,SQ8:50").effort == 50


def test_too_few_vectors_for_a_named_index_are_searched_exactly(tmp_path):
    assert chosen(39 * 256 - 1, tmp_path, "IVF256,SQ8:8:2") == EXACT
    assert chosen(39 * 256, tmp_path, "IVF256,SQ8:8:2") == IndexSetting(factory="IVF256,SQ8", effort=8, rescored=2)
    assert chosen(63, tmp_path, "PCA32,HNSW32,SQ8") == EXACT
    assert chosen(64, tmp_path, "PCA32,HNSW32,SQ8").factory == "PCA32,HNSW32,SQ8"


@pytest.mark.parametrize("text", ["", ":3", "Flat:x", "Flat:1:2:3", "Flat:-1", "Flat:1:0"])
def test_another_form_is_rejected(text):
    with pytest.raises(ValueError, match="expected"):
        parsed(text)


def test_a_factory_that_faiss_does_not_know_and_a_damaged_file_are_rejected(tmp_path):
    with pytest.raises(ValueError, match="FAISS cannot make the index 'Flatt'"):
        chosen(5, tmp_path, "Flatt")
    (tmp_path / TUNED).write_text("{")
    with pytest.raises(ValueError, match=r"index-setting.json is damaged: not JSON.*tune-index"):
        chosen(5, tmp_path)


def test_what_was_read_is_kept_until_the_file_changes(tmp_path, monkeypatch):
    write_tuned(tmp_path, IndexSetting(factory="SQfp16"))
    assert chosen(5, tmp_path).factory == "SQfp16"
    with monkeypatch.context() as patch:
        patch.setattr(IndexSetting, "from_json", None)
        assert chosen(5, tmp_path).factory == "SQfp16"
    write_tuned(tmp_path, IndexSetting(factory="HNSW16,SQ8"))
    assert chosen(5, tmp_path).factory == "HNSW16,SQ8"
