"""`Metrics`: the requests of a server as Prometheus metrics."""

import os
from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from encort.runtime.engine.stats import BOUNDS, StatsSource
from encort.runtime.monitoring.prometheus import StatsCollector
from encort.runtime.server.operations.drift import Drift
from encort.runtime.server.operations.record import RequestRecord
from encort.runtime.server.operations.te_metrics import TeCollector

_COUNTS = tuple(2**power for power in range(16))
"""Buckets of numbers of texts and tokens."""
_COSINES = (0.5, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999, 1.0)
_DIFFERENCES = (1e-5, 1e-4, 1e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class Metrics:
    """Counts requests by model, route and status. All metrics are there from the start, with zeros."""

    def __init__(self, models: Mapping[str, StatsSource], routes: Iterable[str], *, te_names: bool) -> None:
        """Count nothing yet.

        Args:
            models: Models by name; a model that replaces another one is seen.
            routes: Paths of the routes that run a model.
            te_names: Whether the names of text-embeddings-inference are given too.
        """
        own = CollectorRegistry()
        by_route = ("model", "route")
        self.in_progress = Gauge(
            "encort_requests_in_progress", "Requests without an answer yet.", registry=own, multiprocess_mode="livesum"
        )
        self._requests = Counter("encort_requests", "Requests by status.", (*by_route, "status"), registry=own)
        self._times = {
            name: Histogram(f"encort_request_{name}seconds", text, by_route, registry=own, buckets=BOUNDS)
            for name, text in (
                ("", "Time until the end of the answer."),
                ("tokenization_", "Time of tokenization of a request."),
                ("queue_", "Time that a request waited for a run."),
                ("run_", "Time of the runs of a request."),
            )
        }
        self._texts = Histogram("encort_request_texts", "Texts of a request.", by_route, registry=own, buckets=_COUNTS)
        self._tokens = Histogram(
            "encort_request_tokens", "Tokens of a request.", by_route, registry=own, buckets=_COUNTS
        )
        self._compared, self._flips, self._cosines, self._differences = (
            Counter("encort_drift_texts", "Texts that ran again in fp32.", ("model",), registry=own),
            Counter("encort_drift_flips", "Texts with another label or span in fp32.", ("model",), registry=own),
            Histogram("encort_drift_cosine", "Cosine to fp32.", ("model",), registry=own, buckets=_COSINES),
            Histogram("encort_drift_difference", "Difference to fp32.", ("model",), registry=own, buckets=_DIFFERENCES),
        )
        for model in models:
            for drift in (self._compared, self._flips, self._cosines, self._differences):
                drift.labels(model)
            for route in routes:
                self._requests.labels(model, route, "200")
                for histogram in (*self._times.values(), self._texts, self._tokens):
                    histogram.labels(model, route)
        self._exposed = CollectorRegistry()
        requests, stats = _Forward(own), StatsCollector(models)
        for collector in (requests, stats, *([TeCollector(requests, stats)] if te_names else [])):
            self._exposed.register(collector)

    def count(self, record: RequestRecord, *, total_s: float) -> None:
        """Count a request that was answered, or that its client left."""
        labels = record.model, record.route
        self._requests.labels(*labels, str(record.status)).inc()
        self._times[""].labels(*labels).observe(total_s)
        if not record.calls:
            return
        for name, seconds in (
            ("tokenization_", record.tokenization_s),
            ("queue_", record.queue_s),
            ("run_", record.run_s),
        ):
            self._times[name].labels(*labels).observe(seconds)
        self._texts.labels(*labels).observe(record.texts)
        self._tokens.labels(*labels).observe(record.tokens)

    def count_drift(self, model: str, drift: Drift) -> None:
        """Count a text that ran again in fp32."""
        self._compared.labels(model).inc()
        if drift.flipped:
            self._flips.labels(model).inc()
        if drift.cosine is not None:
            self._cosines.labels(model).observe(drift.cosine)
        if drift.difference is not None:
            self._differences.labels(model).observe(drift.difference)

    def expose(self, accept: str) -> tuple[bytes, str]:
        """Return all metrics and their media type, in the format that a scraper accepts."""
        encode, media_type = choose_encoder(accept)
        return encode(self._exposed), media_type


class _Forward(Collector):
    """Gives the metrics of a registry; those of all worker processes, if prometheus-client is in multiprocess mode."""

    def __init__(self, own: CollectorRegistry) -> None:
        is_shared = "PROMETHEUS_MULTIPROC_DIR" in os.environ
        # The package says nothing of its types here.
        self._source: Collector = MultiProcessCollector(None) if is_shared else own  # type: ignore[no-untyped-call]

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics, without the times of their creation, which would double the size of an answer."""
        for metric in self._source.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric
