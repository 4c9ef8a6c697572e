"""Requests that are no messages."""

from __future__ import annotations

import grpc
import pytest
from grpc.aio import AioRpcError

from landseer.ensemble.config import NONE

GARBAGE = b"\xff\xff\xff"


@pytest.mark.parametrize("method", ["SearchService/Search", "IndexService/Delete", "IndexService/UpsertMany"])
async def test_what_cannot_be_parsed_is_an_invalid_argument_and_no_fault_of_ours(start, rich, caplog, method):
    landseer = await start(local_features=NONE)
    path = f"/landseer.v1.{method}"
    with pytest.raises(AioRpcError) as caught:
        if method.endswith("Many"):
            await landseer.channel.stream_unary(path)(iter([GARBAGE]))
        else:
            await landseer.channel.unary_unary(path)(GARBAGE)
    error = rich(caught.value)
    assert (error.code, error.reason, error.fields) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_INPUT", ["request"])
    assert "got 3 bytes that are no message of this method" in error.message
    assert not [record for record in caplog.records if record.exc_info]
