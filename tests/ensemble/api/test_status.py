from __future__ import annotations

import grpc
import pytest

from landseer.ensemble import errors
from landseer.ensemble.api.status import grpc_code, status_of, trailers, unexpected
from landseer.ensemble.errors import IndexLoading


def kinds(error=errors.LandseerError):
    return [error, *(kind for child in error.__subclasses__() for kind in kinds(child))]


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
def test_every_error_has_a_code_and_a_reason(kind):
    error = kind("field", "message") if kind is errors.InvalidInput else kind("message")
    status = status_of(error, "r1")
    assert isinstance(grpc_code(status), grpc.StatusCode)
    names = [detail.type_url.rpartition(".")[2] for detail in status.details]
    expected = ["ErrorInfo", "RequestInfo"]
    if kind is errors.InvalidInput:
        expected.append("BadRequest")
    if kind.retry_after_s is not None:
        expected.append("RetryInfo")
    assert names == expected
    assert kind.reason.isupper()


def test_retryable_errors_say_when_to_retry():
    assert {kind for kind in kinds() if kind.retry_after_s is not None} >= {
        errors.Overloaded,
        errors.ModelsUnavailable,
        IndexLoading,
    }


def test_trailers_stay_small_whatever_is_quoted():
    status = status_of(errors.InvalidInput("id", "x" * 10**6), "r" * 128)
    assert sum(len(value) for _, value in trailers(status)) < 4000


def test_an_unexpected_error_names_its_request():
    assert "abc" in unexpected("abc").message
