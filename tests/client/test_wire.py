from __future__ import annotations

from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2
from hypothesis import given
from hypothesis import strategies as st

from landseer.client import wire


def test_status_is_read_as_google_rpc_writes_it() -> None:
    status = status_pb2.Status(code=3, message="top_k: got 0")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="INVALID_INPUT", domain="landseer"))
    violation = error_details_pb2.BadRequest.FieldViolation(field="top_k", description="got 0, expected 1 or more")
    status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    status.details.add().Pack(error_details_pb2.RetryInfo())
    details = wire.decode_status(status.SerializeToString())
    assert details.reason == "INVALID_INPUT"
    assert details.violations == (("top_k", "got 0, expected 1 or more"),)


@given(st.binary(max_size=60))
def test_a_broken_status_raises_nothing(data: bytes) -> None:
    wire.decode_status(data)


def test_health_is_spoken_as_grpc_health_v1_does() -> None:
    assert health_pb2.HealthCheckRequest.FromString(wire.encode_health_request("a.B")).service == "a.B"
    answer = health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)
    assert wire.decode_health_response(answer.SerializeToString()) == wire.SERVING
