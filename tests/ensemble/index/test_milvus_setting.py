"""Which index of Milvus a setting names."""

from __future__ import annotations

import pytest

from landseer.ensemble.index.milvus_setting import described, milvus_index_of


def test_names_are_faiss_names_and_efforts_are_milvus_parameters():
    graph = milvus_index_of("")
    assert (graph.kind, graph.build["M"], graph.search(10)) == ("HNSW", 32, {"ef": 128})
    # Milvus refuses to find more than `ef`.
    assert milvus_index_of("HNSW16:64").search(200) == {"ef": 200}
    lists = milvus_index_of("IVF1024,Flat:32")
    assert (lists.kind, dict(lists.build), lists.search(10)) == ("IVF_FLAT", {"nlist": 1024}, {"nprobe": 32})
    assert milvus_index_of("Flat").search(10) == {}


def test_a_collection_keeps_its_index_and_takes_the_effort_of_its_own_kind_alone():
    asked = milvus_index_of("HNSW16:64")
    assert described(asked, {"index_type": "HNSW", "M": "8"}).search(10) == {"ef": 64}
    assert described(asked, {"index_type": "IVF_FLAT"}).search(10) == {"nprobe": 16}


@pytest.mark.parametrize(
    ("text", "message"), [("HNSW32,SQ8", "for Milvus expected Flat, HNSW"), ("HNSW32:96:4", "rescores 4 candidates")]
)
def test_what_milvus_is_not_asked_for_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        milvus_index_of(text)
