"""Processes of the race: what they answer, that they rest while others run, and that a failure is said."""

import re
import time
from pathlib import Path

import numpy as np
import pytest

from encort.benchmarks.race import systems
from encort.benchmarks.race.systems import LIMITS, OURS, SYSTEMS, System, SystemFailedError, prepare


def test_a_system_embeds_and_times_each_call(start, tmp_path):
    running = start(
        """
        import time
        def embed(texts):
            time.sleep(0.05 * (len(texts) > 1))
            return [[len(text), threads] for text in texts]
        return embed
        """
    )
    answer = running.run([["a", "bbb"], ["cc"]], output=tmp_path / "found.npy")
    assert np.load(tmp_path / "found.npy").tolist() == [[1, 3], [3, 3], [2, 3]]
    slow, quick = answer["seconds"]
    assert slow >= 0.05 > quick
    assert 5 < answer["peak_mib"] < 2000


def test_a_system_rests_while_others_run(start, tmp_path):
    running = start(
        """
        import threading, time
        turns = [0]
        def turn():
            while True:
                turns[0] += 1
                time.sleep(0.001)
        threading.Thread(target=turn, daemon=True).start()
        def embed(texts):
            return [[turns[0]]]
        return embed
        """
    )

    def rests():
        time.sleep(0.2)
        status = Path(f"/proc/{running._process.pid}/status").read_text(encoding="utf-8")
        return bool(re.search(r"State:\s+T", status))

    def turns():
        running.run([["a"]], output=tmp_path / "turns.npy")
        return int(np.load(tmp_path / "turns.npy")[0, 0])

    assert rests()
    before = turns()
    assert rests()
    assert turns() - before < 100  # of 200 that the pause would have let it do


def test_what_a_library_prints_is_no_answer(start):
    running = start(
        """
        import os
        def embed(texts):
            print("progress")
            os.system("echo from a child")
            return [[1.0]]
        return embed
        """
    )
    assert len(running.run([["a"]])["seconds"]) == 1


def test_a_system_that_cannot_load_says_why(start):
    with pytest.raises(SystemFailedError, match="ValueError: no such kernel"):
        start("raise ValueError('no such kernel')")


def test_a_system_that_dies_is_a_failure(start):
    running = start(
        """
        import os
        def embed(texts):
            if texts == ["die"]:
                os._exit(7)
            return [[1.0]]
        return embed
        """
    )
    with pytest.raises(SystemFailedError, match="ended"):
        running.run([["die"]])
    with pytest.raises(SystemFailedError):
        running.run([["again"]])


def test_a_system_that_does_not_answer_is_ended(start, monkeypatch):
    running = start(
        """
        import time
        def embed(texts):
            time.sleep(100 * (texts == ["sleep"]))
            return [[1.0]]
        return embed
        """
    )
    monkeypatch.setattr(systems, "_PATIENCE_S", 0.5)
    with pytest.raises(SystemFailedError, match="ended"):
        running.run([["sleep"]])


def test_what_was_prepared_is_made_again_when_the_pins_change(tmp_path, monkeypatch, encoder_checkpoint):
    made = []
    monkeypatch.setattr(systems, "PEERS", tmp_path)
    monkeypatch.setattr(systems, "_run", lambda *words: made.append(words))
    for name in ("peer.py", "peer.txt", "protocol.py"):
        (tmp_path / name).write_text("1")
    system = System(name="a peer", peer="peer", variant="fast", precision="fp32")
    for pins in ("1", "1", "2"):
        (tmp_path / "peer.txt").write_text(pins)
        prepare(system, Path("python"), checkpoint=encoder_checkpoint, folder=tmp_path / "made", texts=["a"])
    assert len(made) == 2


def test_every_system_has_a_script_with_its_variant_and_pinned_packages():
    for system in (*SYSTEMS, *LIMITS):
        script = (systems.PEERS / f"{system.peer}.py").read_text(encoding="utf-8")
        assert re.search(rf"Variants: .*\b{system.variant}\b", script)
        pins = (systems.PEERS / f"{system.peer}.txt").read_text(encoding="utf-8").split()
        assert pins
        assert all(re.fullmatch(r"[\w.\[\],-]+==[\w.]+", pin) for pin in pins), pins
    assert len({system.key for system in SYSTEMS}) == len(SYSTEMS)


def test_ours_is_pinned_as_the_constraints_are():
    constraints = set((systems.ROOT / "constraints.txt").read_text(encoding="utf-8").split())
    assert set((systems.PEERS / f"{OURS}.txt").read_text(encoding="utf-8").split()) <= constraints
