"""Made-up results, and systems of a race that are a few lines of Python."""

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from encort.benchmarks.machine import Machine
from encort.benchmarks.race import systems
from encort.benchmarks.race.systems import System, SystemProcess
from encort.benchmarks.results import Outcome, Race

MACHINE = Machine(
    cpu="Test (TM) CPU",
    instruction_sets=["avx2"],
    cores=2,
    memory_gib=24.0,
    system="Linux",
    python="3.11",
    versions={"encort": "0.1.0"},
    revision="abc1234",
    date="2026-11-26T10:00:00+00:00",
)


def outcome(name: str, precision: str = "fp32", **values: Any) -> Outcome:
    return Outcome(name=name, key=f"{name}:{precision}", precision=precision, **values)


@pytest.fixture
def make_race() -> Callable[..., Race]:
    """`make_race(*outcomes)` returns a race of three rounds on a machine whose matrix product takes a second."""

    def make(*outcomes: Outcome, product: list[float] | None = None) -> Race:
        return Race(
            command="python -m encort.benchmarks.race",
            machine=MACHINE,
            threads=2,
            model="minilm",
            workload="made-up texts",
            texts=10,
            tokens=1000,
            outcomes=list(outcomes),
            limits=[] if product == [] else [outcome("matrix product", seconds=product or [1.0, 1.0, 1.0])],
        )

    return make


@pytest.fixture
def start_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], SystemProcess]]:
    """`start_system(lines)` starts the process of a system whose `load` has these lines."""
    processes: list[SystemProcess] = []
    (tmp_path / "protocol.py").write_text((systems.PEERS / "protocol.py").read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(systems, "PEERS", tmp_path)

    def start(load: str) -> SystemProcess:
        body = textwrap.indent(textwrap.dedent(load), "    ")
        head = "from protocol import main\ndef load(variant, checkpoint, folder, threads):"
        code = f"{head}\n{body}\nmain(load, packages=())"
        (tmp_path / "peer.py").write_text(code, encoding="utf-8")
        system = System(name="a peer", peer="peer", variant="fast", precision="fp32")
        processes.append(SystemProcess(system, Path(sys.executable), checkpoint=tmp_path, folder=tmp_path, threads=3))
        return processes[-1]

    yield start
    for process in processes:
        process.close()
