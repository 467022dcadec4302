"""Whole races between systems that are a few lines of Python; one of them fails."""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from encort.benchmarks.race import compare, participants, systems
from encort.benchmarks.race import race as racing
from encort.benchmarks.race.systems import System
from encort.benchmarks.results import Race, read, save

PEER = """
import time
import numpy as np
from protocol import main

SECONDS = {"slow": 0.001, "slower": 0.0015, "snail": 0.001, "worm": 0.001}

def load(variant, checkpoint, folder, threads):
    assert (folder / "calibration").is_file()
    calls = [0]
    def embed(texts):
        calls[0] += 1
        # It embeds a first text, the workload and the pairs, and fails in a round.
        if variant == "broken" and calls[0] > 3:
            raise RuntimeError("out of tricks")
        time.sleep(SECONDS.get(variant, 0) * len(texts))
        skew = 0.1 if variant == "fast" else 0.0
        return [[len(text), 1.0 + skew * len(text)] for text in texts]
    return embed

def prepare(variant, checkpoint, folder, texts):
    (folder / "calibration").write_text(str(len(texts)))

main(load, packages=("numpy",), prepare=prepare)
"""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoder_checkpoint: Path) -> Path:
    """A race of three systems and one limit, with its files in this folder."""
    peers = tmp_path / "peers"
    peers.mkdir()
    shutil.copy(systems.PEERS / "protocol.py", peers)
    (peers / "peer.py").write_text(PEER)
    shutil.copy(peers / "peer.py", peers / "limits.py")
    for pins in ("peer.txt", "limits.txt"):
        (peers / pins).write_text("numpy==2.4.6")
    peer_systems = [
        System(name=name, peer="peer", variant=name, precision="fp32") for name in ("slow", "fast", "broken")
    ]
    monkeypatch.setattr(systems, "PEERS", peers)
    monkeypatch.setattr(racing, "SYSTEMS", peer_systems)
    monkeypatch.setattr(racing, "LIMITS", [System(name="product", peer="limits", variant="fp32", precision="fp32")])
    monkeypatch.setattr(participants, "environment", lambda *_: sys.executable)
    monkeypatch.setattr(participants, "BUILD", tmp_path)
    monkeypatch.setattr(participants, "MODELS", {"minilm": lambda _: encoder_checkpoint})
    monkeypatch.setattr(racing, "scored_pairs", lambda: (["a", "bb", "ccc"], ["a", "b", "c"], [1.0, 2.0, 3.0]))
    return tmp_path


def run(folder: Path, *options: str) -> tuple[Result, Race]:
    """Run the command; return its result and the race that it wrote."""
    # A folder for each race: files are named after the minute, and some tests run two races.
    results = Path(tempfile.mkdtemp(dir=folder))
    arguments = ["--rounds", "3", "--output", str(results), *options]
    done = CliRunner().invoke(racing.main, arguments, catch_exceptions=False)
    (file,) = results.glob("race-*.json")
    race = read(file)
    assert isinstance(race, Race)
    return done, race


def test_a_race_measures_fidelity_and_speed_and_reports_failures(small: Path) -> None:
    done, race = run(small, "--texts", "30")
    slow, fast, broken = race.outcomes
    assert (slow.cosine_mean, slow.error) == (1.0, None)
    assert fast.cosine_mean < 1
    assert all(a > b for a, b in zip(slow.seconds, fast.seconds, strict=True))
    assert {shape: len(seconds) for shape, seconds in slow.grid.items()} == dict.fromkeys(racing.GRID, 3)
    assert min(slow.grid["32 x 16"]) > 0.03 > max(slow.grid["1 x 16"])
    assert fast.spearman is not None
    assert "out of tricks" in broken.error
    assert broken.cosine_mean == 1.0  # compared before it failed
    assert "failed: RuntimeError: out of tricks" in done.output
    assert race.texts == 30
    assert len(race.limits[0].seconds) == 3


def test_systems_are_compared_with_a_reference_that_is_left_out(small: Path) -> None:
    _, race = run(small, "--texts", "20", "--without", "slow")
    assert [outcome.name for outcome in race.outcomes] == ["fast", "broken"]
    assert race.outcomes[0].cosine_mean < 1


def test_a_limit_that_fails_is_reported(small: Path) -> None:
    (small / "peers" / "limits.py").write_text("raise SystemExit(3)")
    done, race = run(small, "--texts", "5", "--only", "fast")
    assert "exit status 3" in race.limits[0].error
    assert "| product | fp32 | failed" in done.output
    assert race.outcomes[0].seconds


def test_encort_is_exported_once_and_runs_in_its_own_environment(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(participants, "OURS", ("ours", "drop_in"))
    variants = [System(name="encort", peer="ours", variant=name, precision=name) for name in ("fp32", "int8")]
    variants.append(System(name="encort as another", peer="drop_in", variant="fp32", precision="fp32"))
    monkeypatch.setattr(racing, "SYSTEMS", variants)
    peers = Path(__file__).parents[3] / "benchmarks" / "peers"
    shutil.copy(peers / "encort_runtime.py", small / "peers" / "ours.py")
    shutil.copy(peers / "drop_in.py", small / "peers" / "drop_in.py")
    environments: list[str] = []
    monkeypatch.setattr(participants, "environment", lambda name, _: environments.append(name) or sys.executable)
    _, race = run(small, "--texts", "5")
    assert [outcome.error for outcome in race.outcomes] == [None, None, None]
    assert race.outcomes[2].cosine_mean > 0.9999
    assert race.outcomes[0].versions["encort"]
    assert race.outcomes[1].cosine_mean > 0.98
    assert sorted(environments) == ["drop_in", "limits", "ours"]


def test_systems_are_chosen_by_name(small: Path) -> None:
    _, race = run(small, "--texts", "5", "--without", "slow", "--without", "broken")
    assert [outcome.name for outcome in race.outcomes] == ["fast"]
    _, race = run(small, "--texts", "5", "--only", "slow")
    assert [outcome.name for outcome in race.outcomes] == ["slow"]


def test_a_slower_build_is_reported_by_compare(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = []
    monkeypatch.setattr(racing, "LIMITS", [])
    for variant in ("slow", "slow", "slower"):
        competitors = [System(name=name, peer="peer", variant=name, precision="fp32") for name in ("snail", "worm")]
        competitors.append(System(name="encort", peer="peer", variant=variant, precision="fp32"))
        monkeypatch.setattr(racing, "SYSTEMS", competitors)
        _, race = run(small, "--texts", "30")
        files.append(str(save(race, small / f"{len(files)}.json")))
    first, again, slowed = files
    assert CliRunner().invoke(compare.main, [first, again, "--threshold", "1.2"]).exit_code == 0
    compared = CliRunner().invoke(compare.main, [first, slowed, "--threshold", "1.2"])
    assert compared.exit_code == 1
    assert "of the time before, SLOWER" in compared.output


def test_a_race_takes_other_texts(small: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("hello\nmy card\n")
    _, race = run(small, "--workload", str(tmp_path / "mine.txt"), "--only", "fast")
    assert (race.workload, race.texts) == ("mine.txt", 2)


def test_a_race_leaves_no_process(small: Path) -> None:
    processes: list[systems.SystemProcess] = []
    original = systems.SystemProcess.__init__

    def record(self: systems.SystemProcess, *arguments: Any, **options: Any) -> None:
        processes.append(self)
        original(self, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(systems.SystemProcess, "__init__", record)
        run(small, "--texts", "5")
    assert len(processes) == 4
    assert all(process._process.poll() is not None for process in processes)
