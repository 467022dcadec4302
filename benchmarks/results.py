"""Results as JSON files, with date and machine; those of this project are in benchmarks/results.

The names of the fields are those of the JSON files, so renaming one makes earlier files unreadable.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from encort.benchmarks.bundle.report import BundleReport
from encort.benchmarks.machine import Machine
from encort.runtime.bundle.schema import from_plain
from encort.runtime.common.errors import InputError

FOLDER = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Everything that was measured of one system in a race.

    Attributes:
        name: Name of the system in tables.
        key: Peer and variant, as `System.key`.
        precision: Precision of the matrix products.
        versions: Versions of the packages.
        seconds: Seconds for the workload, one value per round; tokenization is included, except on GPUs.
        grid: Median seconds of a call by its shape, one value per round.
        cosine_mean: Mean cosine between its embeddings of the workload and those of eager PyTorch in float32.
        cosine_min: Smallest cosine.
        spearman: Spearman correlation on STS-B, in percent; None for random weights.
        load_seconds: Seconds from the start of the process to its first embedding.
        peak_mib: Peak memory of the process.
        error: Why the system could not be measured; None if it could.
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
    """A number with a bound that decides whether results are right.

    Attributes:
        name: Meaning of the number.
        value: The measured number.
        least: Lower bound; None for none.
        most: Upper bound; None for none.
    """

    name: str
    value: float
    least: float | None = None
    most: float | None = None

    @property
    def passed(self) -> bool:
        """Whether the number is within its bounds; NaN is not."""
        return (self.least is None or self.value >= self.least) and (self.most is None or self.value <= self.most)


@dataclass(frozen=True, kw_only=True)
class Race:
    """Result of one race.

    Attributes:
        command: Command that ran the race.
        model: Model that all systems served.
        workload: Source of the texts.
        tokens: Tokens of all texts, special tokens included.
        limits: One large matrix product in each precision. Their `seconds` are the time that all matrix products of the
            workload would take at its speed.
        checks: Further checks of encort's results.
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
        """Name of the result's file, from model, minute and machine."""
        machine = self.machine.gpu or self.machine.cpu
        model, where = (re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") for name in (self.model, machine))
        return f"race-{model}-{self.machine.date[:16].replace(':', '')}-{where}.json"


KINDS = {"bundle": BundleReport, "race": Race}
"""Types of results by the field `kind`."""


def save(result: BundleReport | Race, file: Path) -> Path:
    """Write a result, and return its file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(asdict(result), indent=1) + "\n", encoding="utf-8")
    return file


def read(file: Path) -> BundleReport | Race:
    """Read a result.

    Raises:
        InputError: The file holds no result, or one of another version.
    """
    try:
        plain = json.loads(file.read_text(encoding="utf-8"))
        result: BundleReport | Race = from_plain(KINDS[plain["kind"]], plain)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} holds no result of this version's benchmarks: {error}") from error
    return result
