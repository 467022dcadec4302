"""The report of `encort bench`: everything that it measures of one bundle.

The names of the fields are those of the JSON files, so renaming one makes earlier files unreadable.
"""

from dataclasses import dataclass

from encort.benchmarks.machine import Machine


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """Time of the whole workload in one system: a precision of the bundle, or eager PyTorch.

    Attributes:
        name: Name of the system.
        seconds: One value per round, for all texts, tokenization included.
        cosine_mean: Mean cosine to eager PyTorch, from the bundle's certificate; None for eager PyTorch itself.
        cosine_min: Smallest cosine.
    """

    name: str
    seconds: list[float]
    cosine_mean: float | None
    cosine_min: float | None


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Milliseconds per call, for calls of one shape, one after the other.

    Attributes:
        system: Name of the system.
        calls: Number of timed calls; with few of them p99 is little more than the slowest call.
        texts: Texts per call.
        tokens: Tokens per text.
    """

    system: str
    calls: int
    texts: int
    tokens: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float


@dataclass(frozen=True, kw_only=True)
class LoadTest:
    """Behaviour of the service at one rate of open-loop load.

    Attributes:
        offered: Texts per second that arrived.
        served: Texts per second that were answered.
        refused: Number of texts that a full queue refused.
        p50_ms: From the time when a text was due until its result; None if no text was served.
        queue_ms: Mean time in the queue, a part of the latency.
    """

    offered: float
    served: float
    refused: int
    p50_ms: float | None
    p99_ms: float | None
    queue_ms: float


@dataclass(frozen=True, kw_only=True)
class ColdStart:
    """Time and memory of a new process, from its start to its first result.

    Attributes:
        system: Name of the system.
        python_seconds: Until Python ran its first line.
        import_seconds: To import encort, numpy, onnxruntime and tokenizers; for eager PyTorch, torch and transformers.
        load_seconds: For `encort.load`: manifest, hashes, tokenizer, session.
        first_seconds: For the first text.
        peak_mib_first: Peak memory until the first result; None where the system does not report it.
        peak_mib: Peak memory after the whole workload.
    """

    system: str
    python_seconds: float
    import_seconds: float
    load_seconds: float
    first_seconds: float
    peak_mib_first: float | None
    peak_mib: float | None

    @property
    def seconds(self) -> float:
        """Seconds from the start to the first result."""
        return self.python_seconds + self.import_seconds + self.load_seconds + self.first_seconds


@dataclass(frozen=True, kw_only=True)
class Stages:
    """Seconds that each stage of the workload takes on one core.

    Attributes:
        tokenize: Texts to token ids.
        run: ONNX Runtime, for tokens.
        padding: ONNX Runtime, for padding, by its share of the tokens. This is an upper bound, since most of a graph
            may leave the padding out.
        rest: Planning, copies, results.
    """

    tokenize: float
    run: float
    padding: float
    rest: float


@dataclass(frozen=True, kw_only=True)
class Operator:
    """Time of one of ONNX Runtime's operators.

    Attributes:
        seconds: On one core, for the whole workload.
        share: Share of the time of all operators.
        calls: Number of calls.
    """

    name: str
    seconds: float
    share: float
    calls: int


@dataclass(frozen=True, kw_only=True)
class BundleReport:
    """Everything that `encort bench` measured of one bundle.

    Attributes:
        device: Device that ran the bundle.
        precision: Precision that latency under load, stages and operators were measured with.
        workload: Source of the texts.
        tokens: Tokens of all texts, special tokens included.
        systems: One entry per system; they were measured in turn, with the same threads.
        control: Seconds of a matrix product in numpy, one value per round, in turn with the systems: it shows how fast
            the machine was.
        profile: None if it was not requested.
    """

    kind: str = "bundle"
    command: str
    machine: Machine
    threads: int
    bundle: str
    task: str
    precision: str
    workload: str
    texts: int
    tokens: int
    systems: list[Throughput]
    control: list[float]
    latency: list[Latency]
    load: list[LoadTest]
    cold_starts: list[ColdStart]
    stages: Stages
    profile: list[Operator] | None
    device: str = "cpu"
