"""Page tokens of searches."""

import pytest

from landseer.ensemble.api.page_tokens import PageToken, digest_of
from landseer.ensemble.errors import InvalidInput
from landseer.v1 import common_pb2, search_pb2

REQUEST = search_pb2.SearchRequest(
    image=b"picture", top_k=9, region=common_pb2.Box(width=3), page_size=4, page_token="t", filter="a = 1"
)


@pytest.mark.parametrize("text", ["junk", "x" * 101, "é", "AAAA"])
def test_the_picture_is_not_read_for_what_is_no_token(text):
    with pytest.raises(InvalidInput, match="it is no page token"):
        PageToken.read(text, lambda: pytest.fail("read"))


def test_a_token_belongs_to_one_request():
    token = PageToken(offset=3, sequence=7, digest=digest_of(REQUEST))
    assert PageToken.read(str(token), lambda: digest_of(REQUEST)) == token
    with pytest.raises(InvalidInput, match="another request"):
        PageToken.read(str(token), lambda: b"other")


def test_requests_that_differ_in_more_than_the_page_have_other_digests():
    def changed(**fields):
        other = search_pb2.SearchRequest()
        other.CopyFrom(REQUEST)
        other.MergeFrom(search_pb2.SearchRequest(**fields))
        return digest_of(other)

    assert changed(page_size=9, page_token="u") == digest_of(REQUEST)
    changes = [{"image": b"q"}, {"id": "x"}, {"top_k": 8}, {"region": common_pb2.Box(width=4)}, {"filter": "b = 1"}]
    assert len({digest_of(REQUEST), *(changed(**fields) for fields in changes)}) == 6
