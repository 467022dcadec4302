import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def save_jsonl(file: Path, rows: list[dict[str, str]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def run_to_end(command: list[str], timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            stdout, stderr = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.terminate()  # `kill` would leave the processes of the launcher running
            raise
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


@pytest.fixture
def run(
    tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return `run(task, train=, validation=, ...)`, which trains in two processes on CPU."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def start(task: str, **options: Any) -> subprocess.CompletedProcess[str]:
        options = {"model": tiny_encoder, "output": tmp_path / "checkpoint", "learning_rate": 5e-3, **options}
        flags = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]
        command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "encort"]
        return run_to_end([sys.executable, *command, "train", task, *flags])

    return start


@pytest.mark.slow
def test_two_processes_make_one_checkpoint_and_one_report(
    run: Callable[..., subprocess.CompletedProcess[str]],
    tables: tuple[Path, Path],
    tmp_path: Path,
    train_tiny: Callable[..., Any],
) -> None:
    process = run("text-classification", train=tables[0], validation=tables[1], test=tables[1], batch_size=4, epochs=4)
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("\n") == 1, "only one process prints"
    summary = json.loads(process.stdout)
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint"]
    report = json.loads((tmp_path / "checkpoint" / "training.json").read_text())
    assert summary["metrics"] == report["metrics"]
    single = train_tiny(batch_size=8, epochs=4).report
    assert report["metrics"]["validation"]["accuracy"] == single.metrics["validation"]["accuracy"] == 1
    assert report["metrics"]["test"] == report["metrics"]["validation"]
    assert report["rows"] == {"train": 120, "validation": 12, "test": 12}
    # Each process reads half of every batch.
    assert [entry["step"] for entry in report["history"] if "eval_loss" in entry] == [15, 30, 45, 60]


@pytest.mark.slow
def test_an_encoder_part_without_gradients_is_accepted(
    run: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """Sentence embeddings do not use the pooler of BERT."""
    rows = [{"text": f"my {letter}", "text_pair": f"the {letter} is"} for letter in "abcdefghijklmnop"]
    table = save_jsonl(tmp_path / "pairs.jsonl", rows)
    process = run("sentence-embedding", train=table, validation=table, batch_size=4, epochs=1)
    assert process.returncode == 0, process.stderr[-2000:]
    assert json.loads(process.stdout)["rows"] == {"train": 16, "validation": 16}
