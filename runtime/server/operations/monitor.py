"""`Monitor`: the middleware that makes a record of every request, counts it, logs it and sends its times."""

import re
import time
import uuid
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from encort.runtime.server.operations import access_log, record, tracing
from encort.runtime.server.operations.metrics import Metrics
from encort.runtime.server.operations.record import RequestRecord

_REQUEST_ID = re.compile(r"[!-~]{1,128}")
"""Ids of clients that are given back: printable ASCII, so that nobody writes a line of the log."""


class Monitor:
    """An ASGI application around another one."""

    def __init__(self, inner: ASGIApp, *, metrics: Metrics) -> None:
        """Observe the requests of an application.

        Args:
            inner: The application.
            metrics: Counts its requests.
        """
        self._inner, self._metrics = inner, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        request = _record(scope)
        record.begin(request)
        span = tracing.begin(request, Headers(scope=scope))

        async def send_with_times(message: Message) -> None:
            if message["type"] == "http.response.start":
                request.status = message["status"]
                headers = list(message.get("headers", ()))
                present = {name.lower() for name, _ in headers}
                message["headers"] = headers + [item for item in _headers(request) if item[0] not in present]
            await send(message)

        self._metrics.in_progress.inc()
        try:
            await self._inner(scope, receive, send_with_times)
        except Exception:
            request.status = 500
            raise
        finally:
            self._metrics.in_progress.dec()
            total_s = time.monotonic() - request.received
            self._metrics.count(request, total_s=total_s)
            access_log.write(request, total_s=total_s)
            tracing.end(span, request)


def _record(scope: Scope) -> RequestRecord:
    given = Headers(scope=scope).get("x-request-id", "")
    request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
    return RequestRecord(request_id=request_id, method=scope["method"], path=scope["path"])


def _headers(request: RequestRecord) -> Iterable[tuple[bytes, bytes]]:
    """Return the id, and the times in milliseconds under the names of text-embeddings-inference."""
    yield b"x-request-id", request.request_id.encode()
    if not request.calls:
        return
    yield b"x-compute-tokens", str(request.tokens).encode()
    for name, seconds in (
        (b"x-total-time", time.monotonic() - request.received),
        (b"x-tokenization-time", request.tokenization_s),
        (b"x-queue-time", request.queue_s),
        (b"x-inference-time", request.run_s),
    ):
        yield name, str(round(1000 * seconds)).encode()
