"""Failures of requests, and their status and body in the contract of each route."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import msgspec

from encort.runtime.common.errors import (
    DeadlineError,
    InputError,
    ModelClosedError,
    OverloadedError,
    WrongTaskError,
)

_LOG = logging.getLogger(__name__)


class Failure(Enum):
    """Kinds of failures."""

    INVALID = "invalid"
    EMPTY = "empty"
    BODY_TOO_LARGE = "body_too_large"
    UNAUTHORIZED = "unauthorized"
    UNKNOWN_MODEL = "unknown_model"
    UNKNOWN_ROUTE = "unknown_route"
    WRONG_METHOD = "wrong_method"
    WRONG_TASK = "wrong_task"
    OVERLOADED = "overloaded"
    TOO_LATE = "too_late"
    UNHEALTHY = "unhealthy"
    BACKEND = "backend"


class RequestError(Exception):
    """A request that gets no result.

    Attributes:
        failure: Kind of the failure.
    """

    def __init__(self, failure: Failure, message: str) -> None:
        super().__init__(message)
        self.failure = failure


@dataclass(frozen=True, kw_only=True)
class Contract:
    """The form of failures that the clients of some routes expect.

    Attributes:
        body: Makes the body of a status, a failure and its message.
        statuses: Status of each failure, where it is not that of `_STATUSES`.
    """

    body: Callable[[int, Failure, str], Any]
    statuses: Mapping[Failure, int]

    def status(self, failure: Failure) -> int:
        """Return the status of a failure."""
        return self.statuses.get(failure, _STATUSES[failure])


_STATUSES = {
    Failure.INVALID: 400,
    Failure.EMPTY: 400,
    Failure.BODY_TOO_LARGE: 413,
    Failure.UNAUTHORIZED: 401,
    Failure.UNKNOWN_MODEL: 404,
    Failure.UNKNOWN_ROUTE: 404,
    Failure.WRONG_METHOD: 405,
    Failure.WRONG_TASK: 400,
    Failure.OVERLOADED: 429,
    Failure.TOO_LATE: 504,
    Failure.UNHEALTHY: 503,
    Failure.BACKEND: 500,
}
_TEI_TYPES = {
    Failure.EMPTY: "Empty",
    Failure.WRONG_TASK: "Backend",
    Failure.OVERLOADED: "Overloaded",
    Failure.TOO_LATE: "Overloaded",
    Failure.UNHEALTHY: "Unhealthy",
    Failure.BACKEND: "Backend",
}
_OPENAI_CODES = {
    Failure.UNAUTHORIZED: "invalid_api_key",
    Failure.UNKNOWN_MODEL: "model_not_found",
    Failure.OVERLOADED: "rate_limit_exceeded",
}


def _openai_body(status: int, failure: Failure, message: str) -> Any:
    kind = {401: "authentication_error", 429: "rate_limit_error"}.get(status)
    kind = kind or ("server_error" if status >= 500 else "invalid_request_error")
    param = "model" if failure is Failure.UNKNOWN_MODEL else None
    return {"error": {"message": message, "type": kind, "param": param, "code": _OPENAI_CODES.get(failure)}}


TEI = Contract(
    body=lambda _, failure, message: {"error": message, "error_type": _TEI_TYPES.get(failure, "Validation")},
    statuses={Failure.INVALID: 422, Failure.WRONG_TASK: 424, Failure.BACKEND: 424},
)
"""text-embeddings-inference."""
OPENAI = Contract(body=_openai_body, statuses={})
"""OpenAI, and the routes that have no contract of others."""
OPEN_INFERENCE = Contract(body=lambda _, __, message: {"error": message}, statuses={})
"""The Open Inference Protocol."""


_FAILURES: Mapping[type[Exception], Failure] = {
    OverloadedError: Failure.OVERLOADED,
    DeadlineError: Failure.TOO_LATE,
    WrongTaskError: Failure.WRONG_TASK,
    ModelClosedError: Failure.UNHEALTHY,
    InputError: Failure.INVALID,
}


def translate(error: Exception) -> RequestError:
    """Return the failure that an error is. The message of an unexpected one may hold a text, and is not shown."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, msgspec.DecodeError):
        return RequestError(Failure.INVALID, f"the body does not fit: {error}")
    if isinstance(error, RecursionError):
        return RequestError(Failure.INVALID, "the lists of the body are nested too deeply; send flat ones")
    for kind, failure in _FAILURES.items():
        if isinstance(error, kind):
            return RequestError(failure, str(error))
    _LOG.error("a request failed with an unexpected %s", type(error).__name__)
    return RequestError(Failure.BACKEND, "the server failed on this request")
