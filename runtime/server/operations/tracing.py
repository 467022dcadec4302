"""Traces of requests, by OpenTelemetry's API where it is installed: a span per request, and one per step of its calls.

The API alone records nothing. A provider of its SDK does, such as `opentelemetry-instrument` sets up.
"""

import time
from collections.abc import Iterable
from typing import Any

from starlette.datastructures import Headers

from encort.runtime.server.operations.record import RequestRecord
from encort.runtime.serving.requests import CallTimes

try:
    from opentelemetry import propagate, trace
    from opentelemetry.trace import Span, SpanKind, Status, StatusCode
except ImportError:
    HAS_TRACES = False
else:
    HAS_TRACES = True


def begin(record: RequestRecord, headers: Headers) -> Any:
    """Start the span of a request, in the trace of its client if it sends `traceparent`.

    Returns:
        The span; None if nothing is recorded.
    """
    if not HAS_TRACES:
        return None
    span = _tracer().start_span(record.method, context=propagate.extract(headers), kind=SpanKind.SERVER)
    context = span.get_span_context()
    record.trace_id = f"{context.trace_id:032x}" if context.is_valid else ""
    return span if span.is_recording() else None


def end(span: Any, record: RequestRecord) -> None:
    """End the span of a request, with the spans of its steps."""
    if span is None:
        return
    span.update_name(f"{record.method} {record.route}")
    span.set_attributes(_attributes(record))
    if record.status >= 500:
        span.set_status(Status(StatusCode.ERROR))
    for call in record.calls:
        _add_steps(span, call)
    span.end()


def _tracer() -> "trace.Tracer":
    return trace.get_tracer("encort")


def _attributes(record: RequestRecord) -> dict[str, str | int]:
    """Return attributes by OpenTelemetry's conventions for HTTP, and encort's own."""
    attributes: dict[str, str | int] = {
        "http.request.method": record.method,
        "http.route": record.route,
        "http.response.status_code": record.status,
        "encort.request_id": record.request_id,
    }
    if record.calls:
        attributes |= {"encort.model": record.model, "encort.texts": record.texts, "encort.tokens": record.tokens}
    return attributes


def _add_steps(span: "Span", call: CallTimes) -> None:
    context, to_clock = trace.set_span_in_context(span), time.time() - time.monotonic()
    for name, start, stop in _steps(call):
        step = _tracer().start_span(name, context=context, start_time=int(1e9 * (start + to_clock)))
        step.end(int(1e9 * (stop + to_clock)))


def _steps(call: CallTimes) -> Iterable[tuple[str, float, float]]:
    yield "tokenization", call.begun, call.queued
    yield "queue", call.queued, call.started
    yield "run", call.started, call.ended
