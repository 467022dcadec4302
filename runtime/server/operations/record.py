"""`RequestRecord`: what is known of one request, for its log line, its metrics and its response headers."""

import math
import time
from contextvars import ContextVar
from dataclasses import dataclass, field

from encort.runtime.serving.requests import CallTimes

CLIENT_LEFT = 499
"""Status of a request whose client disconnected before its answer, as in the logs of nginx."""


@dataclass(kw_only=True, eq=False)
class RequestRecord:
    """One request. Times of a request with several calls of the model are sums over them.

    Attributes:
        request_id: The client's `x-request-id`, or a new one.
        method: Method of HTTP.
        path: Path of the URL.
        received: When the request came, by `time.monotonic`.
        deadline: When its client stops waiting, by `time.monotonic`.
        route: Path of its route; "other" for an unknown one.
        model: Name of the model; empty before it is known.
        status: Status of the answer.
        texts: Number of texts or pairs.
        tokens: Number of tokens that were read.
        calls: Times of the calls of the model.
        trace_id: Id of the trace, if traces are recorded.
    """

    request_id: str = ""
    method: str = ""
    path: str = ""
    received: float = field(default_factory=time.monotonic)
    deadline: float = math.inf
    route: str = "other"
    model: str = ""
    status: int = CLIENT_LEFT
    texts: int = 0
    tokens: int = 0
    calls: list[CallTimes] = field(default_factory=list)
    trace_id: str = ""

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the deadline; None without a deadline."""
        return None if self.deadline == math.inf else max(1e-6, self.deadline - time.monotonic())

    @property
    def tokenization_s(self) -> float:
        """Seconds of tokenization."""
        return sum(call.tokenization_s for call in self.calls)

    @property
    def queue_s(self) -> float:
        """Seconds in the queue."""
        return sum(call.queue_s for call in self.calls)

    @property
    def run_s(self) -> float:
        """Seconds in the model."""
        return sum(call.run_s for call in self.calls)


_CURRENT: ContextVar[RequestRecord] = ContextVar("encort_request")


def current() -> RequestRecord:
    """Return the record of the request that this task answers; outside of one, a record that nobody reads."""
    return _CURRENT.get(None) or RequestRecord()


def begin(record: RequestRecord) -> None:
    """Make a record that of this task and of the tasks that it starts."""
    _CURRENT.set(record)
