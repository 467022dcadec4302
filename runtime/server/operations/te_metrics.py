"""`TeCollector`: the metrics of the server under the names of text-embeddings-inference, for its dashboards."""

from collections.abc import Iterable, Mapping

from prometheus_client import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

_HISTOGRAMS = {
    "encort_request_seconds": "te_request_duration",
    "encort_request_tokenization_seconds": "te_request_tokenization_duration",
    "encort_request_queue_seconds": "te_request_queue_duration",
    "encort_request_run_seconds": "te_request_inference_duration",
    "encort_request_tokens": "te_request_input_length",
}
_BATCHES = {"te_batch_next_size": "encort_texts", "te_batch_next_tokens": "encort_tokens"}
"""Sums over micro-batches, by the name of their mean."""
_ERRORS = {"413": "validation", "422": "validation", "424": "backend", "429": "overloaded", "503": "unhealthy"}
"""Value of `err` by status; other statuses are "validation" below 500, and "backend" from 500 on."""


class TeCollector(Collector):
    """Gives metrics of requests and of models under other names. It counts nothing itself."""

    def __init__(self, requests: Collector, stats: Collector) -> None:
        """Read the metrics at each scrape.

        Args:
            requests: See `Metrics`.
            stats: See `StatsCollector`.
        """
        self._requests, self._stats = requests, stats

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics, with `model` and `route` as labels, which text-embeddings-inference does not have."""
        requests = {metric.name: metric for metric in self._requests.collect()}
        stats = {metric.name: metric for metric in self._stats.collect()}
        yield from _counts(requests["encort_requests"].samples)
        for name, te_name in _HISTOGRAMS.items():
            yield _renamed(requests[name], name, te_name)
        yield _gauge("te_queue_size", requests["encort_requests_in_progress"].samples)
        runs = _values(stats["encort_runs"])
        for te_name, name in _BATCHES.items():
            metric = Metric(te_name, f"Mean per micro-batch of {name}_total.", "summary")
            for model, total in _values(stats[name]).items():
                metric.add_sample(f"{te_name}_sum", {"model": model}, total)
                metric.add_sample(f"{te_name}_count", {"model": model}, runs[model])
            yield metric


def _counts(samples: Iterable[Sample]) -> Iterable[Metric]:
    count, success, failure = (
        Metric(f"te_request_{name}", f"Requests: {name}.", "unknown") for name in ("count", "success", "failure")
    )
    for sample in samples:
        status = sample.labels["status"]
        labels = {name: sample.labels[name] for name in ("model", "route")}
        count.add_sample(count.name, {**labels, "status": status}, sample.value)
        if int(status) < 400:
            success.add_sample(success.name, {**labels, "status": status}, sample.value)
        else:
            failure.add_sample(failure.name, {**labels, "status": status, "err": _error(status)}, sample.value)
    return count, success, failure


def _error(status: str) -> str:
    return _ERRORS.get(status, "validation" if int(status) < 500 else "backend")


def _renamed(metric: Metric, name: str, te_name: str) -> Metric:
    renamed = Metric(te_name, metric.documentation, metric.type)
    for sample in metric.samples:
        renamed.add_sample(te_name + sample.name.removeprefix(name), sample.labels, sample.value)
    return renamed


def _gauge(name: str, samples: Iterable[Sample]) -> Metric:
    metric = Metric(name, "Requests without an answer yet.", "gauge")
    metric.add_sample(name, {}, sum(sample.value for sample in samples))
    return metric


def _values(metric: Metric) -> Mapping[str, float]:
    return {sample.labels["model"]: sample.value for sample in metric.samples}
