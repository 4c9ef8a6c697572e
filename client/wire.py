"""Two public protocols, declared by hand, wire for wire: google.rpc.Status and grpc.health.v1.

Their packages (googleapis-common-protos, grpcio-health-checking) are not among the client's dependencies. Only the
fields that the client reads are declared, in a pool of our own, so that they cannot clash with those packages where
they are installed. Field numbers: google/rpc/status.proto, google/rpc/error_details.proto, grpc/health/v1/health.proto.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

_PACKAGE = "landseer.client.wire"
_INT32 = descriptor_pb2.FieldDescriptorProto.TYPE_INT32
_STRING = descriptor_pb2.FieldDescriptorProto.TYPE_STRING
_BYTES = descriptor_pb2.FieldDescriptorProto.TYPE_BYTES

# Message → field → (number, scalar type or the message that the field repeats).
_MESSAGES: dict[str, dict[str, tuple[int, Any]]] = {
    "Any": {"type_url": (1, _STRING), "value": (2, _BYTES)},
    "Status": {"code": (1, _INT32), "message": (2, _STRING), "details": (3, "Any")},
    "ErrorInfo": {"reason": (1, _STRING), "domain": (2, _STRING)},
    "FieldViolation": {"field": (1, _STRING), "description": (2, _STRING)},
    "BadRequest": {"field_violations": (1, "FieldViolation")},
    "HealthCheckRequest": {"service": (1, _STRING)},
    "HealthCheckResponse": {"status": (1, _INT32)},
}

SERVING = 1
"""grpc.health.v1.HealthCheckResponse.ServingStatus.SERVING."""
HEALTH_CHECK = "/grpc.health.v1.Health/Check"


@dataclass(frozen=True, kw_only=True)
class StatusDetails:
    """What the client reads of a google.rpc.Status."""

    reason: str = ""
    """ErrorInfo.reason, for machines: INVALID_INPUT, NOT_INDEXED, MODEL_UNTRAINED ..."""
    violations: tuple[tuple[str, str], ...] = ()
    """BadRequest's field and description, in the server's order."""


def decode_status(data: bytes) -> StatusDetails:
    """Read a serialised google.rpc.Status (`grpc-status-details-bin`). What cannot be read is left out."""
    reason, violations = "", []
    try:
        for detail in _CLASSES["Status"].FromString(data).details:
            kind = detail.type_url.rpartition(".")[2]
            if kind == "ErrorInfo":
                reason = _CLASSES[kind].FromString(detail.value).reason
            elif kind == "BadRequest":
                violations += [
                    (v.field, v.description) for v in _CLASSES[kind].FromString(detail.value).field_violations
                ]
    except DecodeError:
        pass  # The plain status message remains; a broken detail must not hide it.
    return StatusDetails(reason=reason, violations=tuple(violations))


def encode_health_request(service: str) -> bytes:
    """Serialise a grpc.health.v1.HealthCheckRequest; the empty name asks for the server as a whole."""
    data: bytes = _CLASSES["HealthCheckRequest"](service=service).SerializeToString()
    return data


def decode_health_response(data: bytes) -> int:
    """Return the status number of a grpc.health.v1.HealthCheckResponse; `SERVING` is what one hopes for."""
    status: int = _CLASSES["HealthCheckResponse"].FromString(data).status
    return status


def _declare() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="landseer/client/wire.proto", package=_PACKAGE, syntax="proto3")
    for message, fields in _MESSAGES.items():
        declared = file.message_type.add(name=message)
        for field, (number, kind) in fields.items():
            _add_field(declared, field, number, kind)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)  # type: ignore[no-untyped-call, unused-ignore]
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in _MESSAGES
    }


def _add_field(message: descriptor_pb2.DescriptorProto, name: str, number: int, kind: Any) -> None:
    field = message.field.add(name=name, number=number)
    if isinstance(kind, str):
        field.type, field.type_name = field.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
        field.label = field.LABEL_REPEATED
    else:
        field.type, field.label = kind, field.LABEL_OPTIONAL


_CLASSES = _declare()
