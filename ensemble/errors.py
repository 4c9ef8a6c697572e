"""Every error that a caller of the orchestrator can meet.

LandseerError
├── InvalidInput          INVALID_ARGUMENT     the request; names the field
├── NotFound              NOT_FOUND            no picture of that id
├── Untrained             FAILED_PRECONDITION  a model with seeded weights was asked for
├── LocalFeaturesMissing  FAILED_PRECONDITION  what was asked for needs local features, and none are kept
├── CodebookMissing       FAILED_PRECONDITION  what was asked for needs visual words, and the server has none
├── ProfileMismatch       FAILED_PRECONDITION  store and served models were not made for each other
├── StoreUnusable         FAILED_PRECONDITION  the folder is no store, is damaged, or is in use
├── StoreFull             RESOURCE_EXHAUSTED   the store's limit or the disk; nothing was written
├── Overloaded            RESOURCE_EXHAUSTED   Triton's queue is full; try again
├── ModelsUnavailable     UNAVAILABLE          Triton does not answer; try again
├── IndexLoading          UNAVAILABLE          the index is still being read from the store; try again
├── DeadlinePassed        DEADLINE_EXCEEDED    no time was left for a stage that the answer needs
└── InferenceFailed       INTERNAL             Triton answered with an error of its own
"""

from __future__ import annotations

import asyncio
from typing import ClassVar


class LandseerError(Exception):
    """An error with a gRPC code, a stable reason for machines and a message for people."""

    code: ClassVar[str] = "INTERNAL"
    """Name of the grpc.StatusCode."""
    reason: ClassVar[str] = "INTERNAL"
    """`google.rpc.ErrorInfo.reason`, in domain `landseer`."""
    retry_after_s: ClassVar[float | None] = None
    """`google.rpc.RetryInfo`, where trying again can help."""


class InvalidInput(LandseerError):
    """A field of the request cannot be used. The message says what was got, what is expected, how to mend it."""

    code = "INVALID_ARGUMENT"
    reason = "INVALID_INPUT"

    def __init__(self, field: str, message: str, *, kind: str = "value") -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.description = message
        self.kind = kind
        """What is wrong in one word, of few: a label of metrics."""


class NotFound(LandseerError):
    """No picture of that id is indexed."""

    code = "NOT_FOUND"
    reason = "NOT_INDEXED"


class Untrained(LandseerError):
    """A model whose weights are seeded was asked for without `allow_untrained`."""

    code = "FAILED_PRECONDITION"
    reason = "MODEL_UNTRAINED"


class LocalFeaturesMissing(LandseerError):
    """What was asked for needs local features of pictures, and the server keeps none or these have none."""

    code = "FAILED_PRECONDITION"
    reason = "LOCAL_FEATURES_MISSING"


class CodebookMissing(LandseerError):
    """What was asked for needs visual words, and the server has no codebook."""

    code = "FAILED_PRECONDITION"
    reason = "CODEBOOK_MISSING"


class ProfileMismatch(LandseerError):
    """The store was filled by other models, or another preprocessing, than Triton now serves."""

    code = "FAILED_PRECONDITION"
    reason = "PROFILE_MISMATCH"


class StoreUnusable(LandseerError):
    """The folder is not a store, is damaged, is in use, or cannot be read."""

    code = "FAILED_PRECONDITION"
    reason = "STORE_UNUSABLE"


class StoreFull(LandseerError):
    """The store has reached its limit or the disk is full. What was there is untouched."""

    code = "RESOURCE_EXHAUSTED"
    reason = "STORE_FULL"


class Overloaded(LandseerError):
    """Triton's queue is full."""

    code = "RESOURCE_EXHAUSTED"
    reason = "OVERLOADED"
    retry_after_s = 1.0


class ModelsUnavailable(LandseerError):
    """Triton cannot be reached or has not loaded its models."""

    code = "UNAVAILABLE"
    reason = "MODELS_UNAVAILABLE"
    retry_after_s = 2.0


class IndexLoading(LandseerError):
    """The index is being read from the store. Trying again helps."""

    code = "UNAVAILABLE"
    reason = "INDEX_LOADING"
    retry_after_s = 2.0


class DeadlinePassed(LandseerError):
    """The request's deadline passed before the answer was ready."""

    code = "DEADLINE_EXCEEDED"
    reason = "DEADLINE"


class InferenceFailed(LandseerError):
    """Triton answered with an error that is not the caller's fault."""

    code = "INTERNAL"
    reason = "INFERENCE_FAILED"


def reason_of(error: BaseException) -> str:
    """Return the reason of an error, whichever it is. Few values, for they become a label."""
    if isinstance(error, LandseerError):
        return error.reason
    return "CANCELLED" if isinstance(error, asyncio.CancelledError) else "UNEXPECTED"
