"""Prometheus and OpenTelemetry read the values of `Model.stats`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

import encort
from encort.runtime.engine.stats import Histogram
from encort.runtime.monitoring.opentelemetry import observe
from encort.runtime.monitoring.prometheus import StatsCollector


@pytest.fixture
def model(classifier_bundle: Path) -> Iterator[encort.Model]:
    with encort.load(classifier_bundle, threads=1) as model:
        model.classify(["hello", "my card is lost", "card " * 100])
        yield model


def test_prometheus_reads_every_count_and_histogram(model: encort.Model) -> None:
    registry = prometheus_client.CollectorRegistry()
    registry.register(StatsCollector({"banking": model}))
    stats = model.stats()
    for name, value in vars(stats).items():
        if isinstance(value, Histogram):
            assert registry.get_sample_value(f"encort_{name}_count", {"model": "banking"}) == value.count
            assert registry.get_sample_value(f"encort_{name}_sum", {"model": "banking"}) == value.sum
            limit = {"model": "banking", "le": "+Inf"}
            assert registry.get_sample_value(f"encort_{name}_bucket", limit) == value.count
        else:
            suffix = "" if name == "queued_tokens" else "_total"
            assert registry.get_sample_value(f"encort_{name}{suffix}", {"model": "banking"}) == value
    assert (stats.texts, stats.truncated, stats.run_seconds.count) == (3, 1, 3)


def test_prometheus_reads_new_values_at_every_scrape(model: encort.Model) -> None:
    registry = prometheus_client.CollectorRegistry()
    registry.register(StatsCollector({"banking": model}))
    model.classify(["hello"])
    assert registry.get_sample_value("encort_texts_total", {"model": "banking"}) == 4
    assert b'encort_run_seconds_bucket{le="0.001",model="banking"}' in prometheus_client.generate_latest(registry)


def read_metrics(reader: InMemoryMetricReader) -> list[Any]:
    data = reader.get_metrics_data()
    assert data is not None
    (resource,) = data.resource_metrics
    return list(resource.scope_metrics[0].metrics)


def test_opentelemetry_reads_every_count_and_sum(model: encort.Model) -> None:
    reader = InMemoryMetricReader()
    observe({"banking": model}, meter=MeterProvider([reader]).get_meter("test"))
    points = {metric.name: metric.data.data_points[0] for metric in read_metrics(reader)}
    stats = model.stats()
    for name, value in vars(stats).items():
        point = points[f"encort.{name}"]
        assert point.value == (value.sum if isinstance(value, Histogram) else value)
        assert point.attributes == {"model": "banking"}


def test_two_models_have_metrics_of_their_own(model: encort.Model) -> None:
    registry, reader = prometheus_client.CollectorRegistry(), InMemoryMetricReader()
    models = {"first": model, "second": model}
    registry.register(StatsCollector(models))
    observe(models, meter=MeterProvider([reader]).get_meter("test"))
    for name in models:
        assert registry.get_sample_value("encort_texts_total", {"model": name}) == 3
    points = {metric.name: metric.data.data_points for metric in read_metrics(reader)}
    assert [point.attributes["model"] for point in points["encort.texts"]] == ["first", "second"]
