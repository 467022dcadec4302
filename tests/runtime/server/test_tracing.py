"""Traces of requests."""

import asyncio

import pytest

import encort
from encort.runtime.server.operations import tracing
from tests.runtime.server.conftest import Connect

pytest.importorskip("opentelemetry.sdk")
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "_tracer", lambda: provider.get_tracer("test"))
    return exporter


def test_a_request_is_a_span_of_its_clients_trace_with_its_steps(
    connect: Connect, encoder: encort.Model, exporter: InMemorySpanExporter
) -> None:
    async def ask() -> None:
        async with connect({"m": encoder}) as client:
            headers = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
            await client.post("/embed", json={"inputs": ["a traced text", "two"]}, headers=headers)

    asyncio.run(ask())
    spans: dict[str, ReadableSpan] = {span.name: span for span in exporter.get_finished_spans()}
    assert spans.keys() == {"tokenization", "queue", "run", "POST /embed"}
    request = spans["POST /embed"]
    assert request.context is not None
    assert f"{request.context.trace_id:032x}" == TRACE
    assert request.attributes is not None
    assert request.attributes["encort.texts"] == 2
    assert request.attributes["http.response.status_code"] == 200
    steps = [spans[name] for name in ("tokenization", "queue", "run")]
    assert all(step.parent is not None and step.parent.span_id == request.context.span_id for step in steps)
    times = [time for step in steps for time in (step.start_time, step.end_time)]
    assert times == sorted(times, key=lambda time: time or 0)
    assert (request.start_time or 0) <= (times[0] or 0) + 10_000_000


def test_without_the_package_nothing_is_traced(
    connect: Connect, encoder: encort.Model, monkeypatch: pytest.MonkeyPatch, exporter: InMemorySpanExporter
) -> None:
    async def ask() -> int:
        async with connect({"m": encoder}) as client:
            return (await client.post("/embed", json={"inputs": "hello"})).status_code

    monkeypatch.setattr(tracing, "HAS_TRACES", False)
    assert asyncio.run(ask()) == 200
    assert not exporter.get_finished_spans()
