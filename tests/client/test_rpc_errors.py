from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc.aio import AioRpcError, Metadata
from hypothesis import given
from hypothesis import strategies as st

from landseer.client.errors import InvalidRequest, RpcFailed, ServerUnavailable, ServerUnreachable
from landseer.client.rpc_errors import from_rpc_error

PLAIN = "top_k: got 0"


def told(status: bytes | None, code: grpc.StatusCode = grpc.StatusCode.INVALID_ARGUMENT) -> RpcFailed:
    trailing = Metadata() if status is None else Metadata(("grpc-status-details-bin", status))
    return from_rpc_error(AioRpcError(code, Metadata(), trailing, PLAIN, None), address="somewhere", timeout=1)


def status_with(*details) -> status_pb2.Status:
    status = status_pb2.Status(code=3, message=PLAIN)
    for detail in details:
        status.details.add().Pack(detail)
    return status


INFO = error_details_pb2.ErrorInfo(reason="INVALID_INPUT", domain="landseer")
VIOLATION = error_details_pb2.BadRequest.FieldViolation(field="top_k", description="got 0, expected 1 or more")
BAD_REQUEST = error_details_pb2.BadRequest(field_violations=[VIOLATION])


def test_reason_and_violations_are_read_and_unknown_details_ignored() -> None:
    status = status_with(error_details_pb2.RetryInfo(), INFO, BAD_REQUEST, status_pb2.Status())
    status.details.add(type_url="type.googleapis.com/not.Known", value=b"\xff")
    error = told(status.SerializeToString())
    assert isinstance(error, InvalidRequest)
    assert error.reason == "INVALID_INPUT"
    assert error.violations == (("top_k", "got 0, expected 1 or more"),)
    assert str(error) == "top_k: got 0, expected 1 or more"


def test_a_broken_detail_hides_neither_the_message_nor_the_others() -> None:
    status = status_with(INFO, BAD_REQUEST)
    status.details[1].value = b"\xff"
    error = told(status.SerializeToString())
    assert (str(error), error.reason, error.violations) == (PLAIN, "INVALID_INPUT", ())


@given(st.binary(max_size=60))
def test_a_broken_status_does_not_hide_the_message(data: bytes) -> None:
    assert str(told(data)) == PLAIN


@pytest.mark.parametrize(("status", "kind"), [(None, ServerUnreachable), (b"\xff", ServerUnavailable)])
def test_only_a_server_attaches_a_status(status: bytes | None, kind: type) -> None:
    assert type(told(status, grpc.StatusCode.UNAVAILABLE)) is kind


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("CANCELLED", "CANCELLED"),
        ("UNAVAILABLE", "Cancelling all calls"),
        ("UNAVAILABLE", "Stream removed (GOAWAY received; Error code: 2; Debug Text: {http2_error:2})"),
        ("INTERNAL", "Received RST_STREAM with error code 2"),
        ("UNKNOWN", "Stream removed"),
    ],
)
def test_a_call_that_its_server_ended_says_so(code: str, text: str) -> None:
    failed = AioRpcError(grpc.StatusCode[code], Metadata(), Metadata(), text, None)
    error = from_rpc_error(failed, address="somewhere", timeout=1)
    assert isinstance(error, ServerUnavailable)
    assert str(error) == "the server at somewhere, or a proxy before it, ended the call before it was done; try again"
