"""Processes of the race: their answers, their pauses while other systems run, and their failures."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from encort.benchmarks.race import systems
from encort.benchmarks.race.systems import (
    LIMITS,
    OURS,
    SYSTEMS,
    System,
    SystemFailedError,
    SystemProcess,
    prepare,
)

StartSystem = Callable[[str], SystemProcess]


def test_a_system_embeds_and_times_each_call(start_system: StartSystem, tmp_path: Path) -> None:
    process = start_system(
        """
        import time
        def embed(texts):
            time.sleep(0.05 * (len(texts) > 1))
            return [[len(text), threads] for text in texts]
        return embed
        """
    )
    answer = process.run([["a", "bbb"], ["cc"]], output=tmp_path / "embeddings.npy")
    assert np.load(tmp_path / "embeddings.npy").tolist() == [[1, 3], [3, 3], [2, 3]]
    slow, quick = answer["seconds"]
    assert slow >= 0.05 > quick
    assert 5 < answer["peak_mib"] < 2000


def test_a_system_is_stopped_while_others_run(start_system: StartSystem, tmp_path: Path) -> None:
    process = start_system(
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

    def is_stopped() -> bool:
        time.sleep(0.2)
        status = Path(f"/proc/{process._process.pid}/status").read_text(encoding="utf-8")
        return bool(re.search(r"State:\s+T", status))

    def turns() -> int:
        process.run([["a"]], output=tmp_path / "turns.npy")
        return int(np.load(tmp_path / "turns.npy")[0, 0])

    assert is_stopped()
    before = turns()
    assert is_stopped()
    assert turns() - before < 100  # without the stop it would make about 200


def test_output_of_a_library_is_not_an_answer(start_system: StartSystem) -> None:
    process = start_system(
        """
        import os
        def embed(texts):
            print("progress")
            os.system("echo from a child")
            return [[1.0]]
        return embed
        """
    )
    assert len(process.run([["a"]])["seconds"]) == 1


def test_a_system_that_cannot_load_says_why(start_system: StartSystem) -> None:
    with pytest.raises(SystemFailedError, match="ValueError: no such kernel"):
        start_system("raise ValueError('no such kernel')")


def test_a_process_that_ends_is_a_failure(start_system: StartSystem) -> None:
    process = start_system(
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
        process.run([["die"]])
    with pytest.raises(SystemFailedError):
        process.run([["again"]])


def test_a_system_that_does_not_answer_is_killed(start_system: StartSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    process = start_system(
        """
        import time
        def embed(texts):
            time.sleep(100 * (texts == ["sleep"]))
            return [[1.0]]
        return embed
        """
    )
    monkeypatch.setattr(systems, "_ANSWER_TIMEOUT_S", 0.5)
    with pytest.raises(SystemFailedError, match="ended"):
        process.run([["sleep"]])


def test_a_system_is_prepared_again_when_its_pins_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoder_checkpoint: Path
) -> None:
    commands: list[tuple[str, ...]] = []
    monkeypatch.setattr(systems, "PEERS", tmp_path)
    monkeypatch.setattr(systems, "_run", lambda *words: commands.append(words))
    for name in ("peer.py", "peer.txt", "protocol.py"):
        (tmp_path / name).write_text("1")
    system = System(name="a peer", peer="peer", variant="fast", precision="fp32")
    for pins in ("1", "1", "2"):
        (tmp_path / "peer.txt").write_text(pins)
        prepare(system, Path("python"), checkpoint=encoder_checkpoint, folder=tmp_path / "made", texts=["a"])
    assert len(commands) == 2


def test_every_system_has_a_script_with_its_variant_and_pinned_packages() -> None:
    for system in (*SYSTEMS, *LIMITS):
        script = (systems.PEERS / f"{system.peer}.py").read_text(encoding="utf-8")
        assert re.search(rf"Variants: .*\b{system.variant}\b", script)
        lines = (systems.PEERS / f"{system.peer}.txt").read_text(encoding="utf-8").splitlines()
        pins = [line for line in lines if not line.startswith("#")]
        assert pins
        assert all(re.fullmatch(r"[\w.\[\],-]+==[\w.]+", pin) for pin in pins), pins
    assert len({system.key for system in SYSTEMS}) == len(SYSTEMS)


def test_encort_has_the_pins_of_the_constraints() -> None:
    constraints = set((systems.ROOT / "constraints.txt").read_text(encoding="utf-8").split())
    for peer in OURS:
        assert set((systems.PEERS / f"{peer}.txt").read_text(encoding="utf-8").split()) <= constraints
