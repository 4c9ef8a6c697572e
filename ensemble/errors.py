"""Every error that the orchestrator returns to callers.

LandseerError
├── InvalidInput          INVALID_ARGUMENT     a field of the request is invalid; names it
├── NotFound              NOT_FOUND            no picture with that id
├── Untrained             FAILED_PRECONDITION  the requested model was never trained
├── LocalFeaturesMissing  FAILED_PRECONDITION  the request needs local features, and none are stored
├── CodebookMissing       FAILED_PRECONDITION  the request needs visual words, and the server has no codebook
├── ProfileMismatch       FAILED_PRECONDITION  the store was filled by other models than Triton serves
├── StoreUnusable         FAILED_PRECONDITION  the folder is not a store, is damaged, or is in use
├── StoreFull             RESOURCE_EXHAUSTED   the store's limit or the disk is full; nothing was written
├── Overloaded            RESOURCE_EXHAUSTED   more load than can be answered in time; try again
├── ModelsUnavailable     UNAVAILABLE          Triton does not answer; try again
│   └── CheckMissed                            one check of Triton had no answer
├── IndexLoading          UNAVAILABLE          the index is still being read from the store; try again
├── IndexUnavailable      UNAVAILABLE          the index is in another process, which does not answer; try again
├── StoreUnavailable      UNAVAILABLE          the store is in a database, which does not answer; try again
├── Stopping              UNAVAILABLE          the server stops, and did not begin the call; try again
├── Unfinished            UNAVAILABLE          the call ended before it was done; a write may have been applied
├── Unauthenticated       UNAUTHENTICATED      the call has no valid token
├── NotPermitted          PERMISSION_DENIED    the token's role does not allow the call
├── RateLimited           RESOURCE_EXHAUSTED   the token has used its requests or bytes per second; try again
├── DeadlinePassed        DEADLINE_EXCEEDED    no time was left for a required stage
└── InferenceFailed       INTERNAL             Triton failed to run a model
"""

from __future__ import annotations

import asyncio
from typing import ClassVar


class LandseerError(Exception):
    """An error with a gRPC code, a stable reason for programs and a message for people."""

    code: ClassVar[str] = "INTERNAL"
    """Name of the grpc.StatusCode."""
    reason: ClassVar[str] = "INTERNAL"
    """`google.rpc.ErrorInfo.reason`, in domain `landseer`."""
    retry_after_s: float | None = None
    """`google.rpc.RetryInfo`, if a retry can help."""


class InvalidInput(LandseerError):
    """A field of the request is invalid. The message says what was got, what was expected, and how to fix it."""

    code = "INVALID_ARGUMENT"
    reason = "INVALID_INPUT"

    def __init__(self, field: str, message: str, *, kind: str = "value") -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.description = message
        self.kind = kind
        """What is wrong, in one of a few words: a label of metrics."""


class NotFound(LandseerError):
    """No picture with that id is indexed."""

    code = "NOT_FOUND"
    reason = "NOT_INDEXED"


class Untrained(LandseerError):
    """A model that was never trained was requested without `allow_untrained`."""

    code = "FAILED_PRECONDITION"
    reason = "MODEL_UNTRAINED"


class LocalFeaturesMissing(LandseerError):
    """The request needs local features, and the server stores none or these pictures have none."""

    code = "FAILED_PRECONDITION"
    reason = "LOCAL_FEATURES_MISSING"


class CodebookMissing(LandseerError):
    """The request needs visual words, and the server has no codebook."""

    code = "FAILED_PRECONDITION"
    reason = "CODEBOOK_MISSING"


class ProfileMismatch(LandseerError):
    """The store was filled by other models, or with other preprocessing, than Triton now serves."""

    code = "FAILED_PRECONDITION"
    reason = "PROFILE_MISMATCH"


class StoreUnusable(LandseerError):
    """The folder is not a store, is damaged, is in use, or cannot be read."""

    code = "FAILED_PRECONDITION"
    reason = "STORE_UNUSABLE"


class StoreFull(LandseerError):
    """The store has reached its limit or the disk is full. Existing data is unchanged."""

    code = "RESOURCE_EXHAUSTED"
    reason = "STORE_FULL"


class Overloaded(LandseerError):
    """There is more load than can be answered in time; nothing was done."""

    code = "RESOURCE_EXHAUSTED"
    reason = "OVERLOADED"
    retry_after_s = 1.0

    def __init__(self, message: str, *, retry_after_s: float = retry_after_s) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Unauthenticated(LandseerError):
    """The server asks for tokens, and the call has none that is valid."""

    code = "UNAUTHENTICATED"
    reason = "UNAUTHENTICATED"


class NotPermitted(LandseerError):
    """The token's role does not allow this call."""

    code = "PERMISSION_DENIED"
    reason = "NOT_PERMITTED"


class RateLimited(LandseerError):
    """The token has used its requests or its bytes per second."""

    code = "RESOURCE_EXHAUSTED"
    reason = "RATE_LIMITED"
    retry_after_s = 1.0


class ModelsUnavailable(LandseerError):
    """Triton cannot be reached or has not loaded its models."""

    code = "UNAVAILABLE"
    reason = "MODELS_UNAVAILABLE"
    retry_after_s = 2.0


class CheckMissed(ModelsUnavailable):
    """A check of Triton had no answer. One alone may only say that Triton is busy."""


class IndexLoading(LandseerError):
    """The index is being built from the store, and nothing was done. A retry helps."""

    code = "UNAVAILABLE"
    reason = "INDEX_LOADING"
    retry_after_s = 2.0


class IndexUnavailable(LandseerError):
    """The index is in another process, Milvus, which does not answer. A retry helps when it does again."""

    code = "UNAVAILABLE"
    reason = "INDEX_UNAVAILABLE"
    retry_after_s = 2.0


class StoreUnavailable(LandseerError):
    """The store is in a database, PostgreSQL, which does not answer. Nothing was written. A retry may help."""

    code = "UNAVAILABLE"
    reason = "STORE_UNAVAILABLE"
    retry_after_s = 1.0


class Stopping(LandseerError):
    """The server stops, and nothing was done. A retry finds the next one, or another."""

    code = "UNAVAILABLE"
    reason = "STOPPING"
    retry_after_s = 1.0


class Unfinished(LandseerError):
    """The call ended before it was done. A write may have been applied, and may not."""

    code = "UNAVAILABLE"
    reason = "UNFINISHED"
    retry_after_s = 1.0


class DeadlinePassed(LandseerError):
    """The request's deadline passed before the answer was ready."""

    code = "DEADLINE_EXCEEDED"
    reason = "DEADLINE"


class InferenceFailed(LandseerError):
    """Triton failed with an error that is not the caller's fault."""

    code = "INTERNAL"
    reason = "INFERENCE_FAILED"


def reason_of(error: BaseException) -> str:
    """Return the reason of any error. There are few, because they become a label of metrics."""
    if isinstance(error, LandseerError):
        return error.reason
    return "CANCELLED" if isinstance(error, asyncio.CancelledError) else "UNEXPECTED"
