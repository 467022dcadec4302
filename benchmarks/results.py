"""What was measured, as JSON: dated, with the machine, under benchmarks/results."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from encort.benchmarks.machine import Machine
from encort.runtime.bundle.schema import from_plain
from encort.runtime.common.errors import InputError

FOLDER = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to run a workload: a precision of the bundle, or eager PyTorch.

    Attributes:
        seconds: For all texts, tokenization included, one a round.
        cosine_mean: To eager PyTorch, as the bundle's certificate says; None for eager PyTorch itself.
        cosine_min: The smallest.
    """

    name: str
    seconds: list[float]
    cosine_mean: float | None
    cosine_min: float | None


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Of calls of one shape, one after the other, in milliseconds.

    Attributes:
        way: By its name.
        calls: How many were timed; with few of them p99 is hardly more than the slowest.
        texts: Of a call.
        tokens: Of each text.
    """

    way: str
    calls: int
    texts: int
    tokens: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a service did under open-loop load.

    Attributes:
        offered: Texts a second that came.
        served: Texts a second that were answered.
        turned_away: Texts that the queue had no room for.
        p50_ms: From when a text was due until its result; None if none was served.
        queue_ms: Of it in the queue, on average.
    """

    offered: float
    served: float
    turned_away: int
    p50_ms: float | None
    p99_ms: float | None
    queue_ms: float


@dataclass(frozen=True, kw_only=True)
class Fresh:
    """A new process, from its start to its first result.

    Attributes:
        way: By its name.
        python_seconds: Until Python ran its first line.
        import_seconds: Importing encort, numpy, onnxruntime and tokenizers; of eager PyTorch, torch and transformers.
        load_seconds: `encort.load`: manifest, hashes, tokenizer, session.
        first_seconds: The first text.
        peak_mib_first: Most memory by then; None where the system does not tell.
        peak_mib: Most memory after the whole workload.
    """

    way: str
    python_seconds: float
    import_seconds: float
    load_seconds: float
    first_seconds: float
    peak_mib_first: float | None
    peak_mib: float | None

    @property
    def seconds(self) -> float:
        """From the start to the first result."""
        return self.python_seconds + self.import_seconds + self.load_seconds + self.first_seconds


@dataclass(frozen=True, kw_only=True)
class Stages:
    """Where the time of a workload goes on one core, in seconds.

    Attributes:
        tokenize: Texts to token ids.
        run: In ONNX Runtime, for tokens that count.
        padding: In ONNX Runtime, for padding, by its share of the tokens: an upper bound, since most of a graph may
            leave it out.
        rest: Planning, copying, results.
    """

    tokenize: float
    run: float
    padding: float
    rest: float


@dataclass(frozen=True, kw_only=True)
class Operator:
    """One of ONNX Runtime's operators.

    Attributes:
        seconds: On one core, over the workload.
        share: Of all operators.
        calls: How often.
    """

    name: str
    seconds: float
    share: float
    calls: int


@dataclass(frozen=True, kw_only=True)
class BundleReport:
    """What `encort bench` measured of one bundle.

    Attributes:
        device: That ran it.
        precision: That latency, load, stages and fresh processes are of.
        workload: Where the texts are from.
        tokens: Of all texts, special ones included.
        ways: In turn, with the same threads.
        control: A product of numpy, in turn with them: how fast the machine was, one a round.
        profile: None if it was not asked for.
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
    ways: list[Way]
    control: list[float]
    latency: list[Latency]
    load: list[Load]
    fresh: list[Fresh]
    stages: Stages
    profile: list[Operator] | None
    device: str = "cpu"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one system of a race did.

    Attributes:
        name: In tables.
        key: Its peer and variant.
        precision: Of its products.
        versions: Of its packages.
        seconds: For the workload, one a round; tokenization is included, but on GPUs.
        grid: Median seconds of a call by its shape, one a round.
        cosine_mean: Between its embeddings of the workload and those of eager PyTorch in float32.
        cosine_min: The smallest.
        spearman: On STS-B, in percent; None for random weights.
        load_seconds: From the start of its process to its first embedding.
        peak_mib: Most memory of its process.
        error: Why it could not be measured.
    """

    name: str
    key: str
    precision: str
    versions: Mapping[str, str] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    grid: Mapping[str, list[float]] = field(default_factory=dict)
    cosine_mean: float | None = None
    cosine_min: float | None = None
    spearman: float | None = None
    load_seconds: float | None = None
    peak_mib: float | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Check:
    """A number that decides whether results are right.

    Attributes:
        least: That it may be; None for any.
        most: The same.
    """

    name: str
    found: float
    least: float | None = None
    most: float | None = None

    @property
    def is_right(self) -> bool:
        """NaN is not."""
        return (self.least is None or self.found >= self.least) and (self.most is None or self.found <= self.most)


@dataclass(frozen=True, kw_only=True)
class Race:
    """One race.

    Attributes:
        command: That ran it.
        model: What all of them served.
        workload: Where the texts are from.
        tokens: Of all texts, special ones included.
        limits: One large matrix product in each precision: `seconds` are those that the products of the workload
            take at its speed.
        checks: Of encort's results, beyond what the outcomes say.
    """

    kind: str = "race"
    command: str
    machine: Machine
    threads: int
    model: str
    workload: str
    texts: int
    tokens: int
    outcomes: list[Outcome]
    limits: list[Outcome]
    checks: list[Check] = field(default_factory=list)

    @property
    def file_name(self) -> str:
        machine = self.machine.gpu or self.machine.cpu
        model, where = (re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") for name in (self.model, machine))
        return f"race-{model}-{self.machine.date[:16].replace(':', '')}-{where}.json"


KINDS = {"bundle": BundleReport, "race": Race}


def save(result: BundleReport | Race, file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(asdict(result), indent=1) + "\n", encoding="utf-8")
    return file


def read(file: Path) -> BundleReport | Race:
    """Read a result.

    Raises:
        InputError: The file holds something else.
    """
    try:
        plain = json.loads(file.read_text(encoding="utf-8"))
        found: BundleReport | Race = from_plain(KINDS[plain["kind"]], plain)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} holds no result of this version's benchmarks: {error}") from error
    return found
