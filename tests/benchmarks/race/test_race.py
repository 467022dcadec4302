"""A whole race between systems of a few lines, one of which fails."""

import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from encort.benchmarks.race import compare, systems
from encort.benchmarks.race import race as racing
from encort.benchmarks.race.systems import System
from encort.benchmarks.results import read, save

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
        # The first text, the workload and the pairs pass; it fails in a round.
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
def small(tmp_path, monkeypatch, encoder_checkpoint):
    """A race of three systems and one limit, that keeps its files in a folder that goes away."""
    peers = tmp_path / "peers"
    peers.mkdir()
    shutil.copy(systems.PEERS / "protocol.py", peers)
    (peers / "peer.py").write_text(PEER)
    shutil.copy(peers / "peer.py", peers / "limits.py")
    for pins in ("peer.txt", "limits.txt"):
        (peers / pins).write_text("numpy==2.4.6")
    kinds = [System(name=name, peer="peer", variant=name, precision="fp32") for name in ("slow", "fast", "broken")]
    monkeypatch.setattr(systems, "PEERS", peers)
    monkeypatch.setattr(racing, "SYSTEMS", kinds)
    monkeypatch.setattr(racing, "LIMITS", [System(name="product", peer="limits", variant="fp32", precision="fp32")])
    monkeypatch.setattr(racing, "environment", lambda *_: sys.executable)
    monkeypatch.setattr(racing, "BUILD", tmp_path)
    monkeypatch.setattr(racing, "MODELS", {"minilm": lambda _: encoder_checkpoint})
    monkeypatch.setattr(racing, "scored_pairs", lambda: (["a", "bb", "ccc"], ["a", "b", "c"], [1.0, 2.0, 3.0]))
    return tmp_path


def run(folder, *options):
    results = Path(tempfile.mkdtemp(dir=folder))  # the name of a race is the minute's, and some tests run two
    arguments = ["--rounds", "3", "--output", str(results), *options]
    done = CliRunner().invoke(racing.main, arguments, catch_exceptions=False)
    (file,) = results.glob("race-*.json")
    return done, read(file)


def test_a_race(small):
    done, found = run(small, "--texts", "30")
    slow, fast, broken = found.outcomes
    assert (slow.cosine_mean, slow.error) == (1.0, None)
    assert fast.cosine_mean < 1
    assert all(a > b for a, b in zip(slow.seconds, fast.seconds, strict=True))
    assert {shape: len(each) for shape, each in slow.grid.items()} == dict.fromkeys(racing.GRID, 3)
    assert min(slow.grid["32 x 16"]) > 0.03 > max(slow.grid["1 x 16"])
    assert fast.spearman is not None
    assert "out of tricks" in broken.error
    assert broken.cosine_mean == 1.0  # judged before it failed
    assert "failed: RuntimeError: out of tricks" in done.output
    assert found.texts == 30
    assert len(found.limits[0].seconds) == 3


def test_without_the_reference_the_others_are_judged_all_the_same(small):
    _, found = run(small, "--texts", "20", "--without", "slow")
    assert [each.name for each in found.outcomes] == ["fast", "broken"]
    assert found.outcomes[0].cosine_mean < 1


def test_a_limit_that_fails_is_told(small):
    (small / "peers" / "limits.py").write_text("raise SystemExit(3)")
    done, found = run(small, "--texts", "5", "--only", "fast")
    assert "exit status 3" in found.limits[0].error
    assert "| product | fp32 | failed" in done.output
    assert found.outcomes[0].seconds


def test_ours_is_exported_once_and_served_by_its_own_package(small, monkeypatch):
    monkeypatch.setattr(racing, "OURS", "ours")
    kinds = [System(name="encort", peer="ours", variant=name, precision=name) for name in ("fp32", "int8")]
    monkeypatch.setattr(racing, "SYSTEMS", kinds)
    peer = Path(__file__).parents[3] / "benchmarks" / "peers" / "encort_runtime.py"
    shutil.copy(peer, small / "peers" / "ours.py")
    environments = []
    monkeypatch.setattr(racing, "environment", lambda name, _: environments.append(name) or sys.executable)
    _, found = run(small, "--texts", "5")
    assert [each.error for each in found.outcomes] == [None, None]
    assert found.outcomes[0].versions["encort"]
    assert found.outcomes[1].cosine_mean > 0.98
    assert sorted(environments) == ["limits", "ours"]


def test_systems_are_left_out_by_name(small):
    _, found = run(small, "--texts", "5", "--without", "slow", "--without", "broken")
    assert [each.name for each in found.outcomes] == ["fast"]
    _, found = run(small, "--texts", "5", "--only", "slow")
    assert [each.name for each in found.outcomes] == ["slow"]


def test_a_build_that_was_slowed_is_caught(small, monkeypatch):
    kept = []
    monkeypatch.setattr(racing, "LIMITS", [])
    for variant in ("slow", "slow", "slower"):
        kinds = [System(name=name, peer="peer", variant=name, precision="fp32") for name in ("snail", "worm")]
        kinds.append(System(name="encort", peer="peer", variant=variant, precision="fp32"))
        monkeypatch.setattr(racing, "SYSTEMS", kinds)
        _, found = run(small, "--texts", "30")
        kept.append(str(save(found, small / f"{len(kept)}.json")))
    first, again, slowed = kept
    assert CliRunner().invoke(compare.main, [first, again, "--threshold", "1.2"]).exit_code == 0
    caught = CliRunner().invoke(compare.main, [first, slowed, "--threshold", "1.2"])
    assert caught.exit_code == 1
    assert "of the time before, SLOWER" in caught.output


def test_other_texts(small, tmp_path):
    (tmp_path / "mine.txt").write_text("hello\nmy card\n")
    _, found = run(small, "--workload", str(tmp_path / "mine.txt"), "--only", "fast")
    assert (found.workload, found.texts) == ("mine.txt", 2)


def test_no_process_is_left(small):
    begun = []
    original = systems.Running.__init__

    def remember(self, *arguments, **options):
        begun.append(self)
        original(self, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(systems.Running, "__init__", remember)
        run(small, "--texts", "5")
    assert len(begun) == 4
    assert all(each._process.poll() is not None for each in begun)
