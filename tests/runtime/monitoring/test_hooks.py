"""Prometheus and OpenTelemetry see what `Model.stats` says."""

import prometheus_client
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

import encort
from encort.runtime.engine.stats import Histogram
from encort.runtime.monitoring.opentelemetry import observe
from encort.runtime.monitoring.prometheus import StatsCollector


@pytest.fixture
def model(classifier_bundle):
    with encort.load(classifier_bundle, threads=1) as model:
        model.classify(["hello", "my card is lost", "card " * 100])
        yield model


def test_prometheus_reads_every_count_and_histogram(model):
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


def test_prometheus_reads_anew_each_time(model):
    registry = prometheus_client.CollectorRegistry()
    registry.register(StatsCollector({"banking": model}))
    model.classify(["hello"])
    assert registry.get_sample_value("encort_texts_total", {"model": "banking"}) == 4
    assert b'encort_run_seconds_bucket{le="0.001",model="banking"}' in prometheus_client.generate_latest(registry)


def test_opentelemetry_reads_every_count_and_sum(model):
    reader = InMemoryMetricReader()
    observe({"banking": model}, meter=MeterProvider([reader]).get_meter("test"))
    (resource,) = reader.get_metrics_data().resource_metrics
    found = {metric.name: metric.data.data_points[0] for metric in resource.scope_metrics[0].metrics}
    stats = model.stats()
    for name, value in vars(stats).items():
        point = found[f"encort.{name}"]
        assert point.value == (value.sum if isinstance(value, Histogram) else value)
        assert point.attributes == {"model": "banking"}


def test_two_models_stand_side_by_side(model):
    registry, reader = prometheus_client.CollectorRegistry(), InMemoryMetricReader()
    models = {"first": model, "second": model}
    registry.register(StatsCollector(models))
    observe(models, meter=MeterProvider([reader]).get_meter("test"))
    for name in models:
        assert registry.get_sample_value("encort_texts_total", {"model": name}) == 3
    (resource,) = reader.get_metrics_data().resource_metrics
    points = {metric.name: metric.data.data_points for metric in resource.scope_metrics[0].metrics}
    assert [point.attributes["model"] for point in points["encort.texts"]] == ["first", "second"]
