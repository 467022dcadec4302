import json
import subprocess
import sys

import pytest


def save_jsonl(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def finished(command, timeout_s=90):
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            stdout, stderr = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.terminate()  # of a launcher that is killed the processes would stay
            raise
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


@pytest.fixture
def run(tiny_encoder, tmp_path, monkeypatch):
    """`run(task, train=, validation=, ...)`: two processes that learn together on CPU."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def start(task, **options):
        options = {"model": tiny_encoder, "output": tmp_path / "checkpoint", "learning_rate": 5e-3, **options}
        flags = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]
        command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "encort"]
        return finished([sys.executable, *command, "train", task, *flags])

    return start


@pytest.mark.slow
def test_two_processes_make_one_checkpoint_and_one_report(run, tables, tmp_path, train_tiny):
    ended = run("text-classification", train=tables[0], validation=tables[1], test=tables[1], batch_size=4, epochs=4)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("\n") == 1, "one process speaks"
    summary = json.loads(ended.stdout)
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint"]
    report = json.loads((tmp_path / "checkpoint" / "training.json").read_text())
    assert summary["metrics"] == report["metrics"]
    alone = train_tiny(batch_size=8, epochs=4).report
    assert report["metrics"]["validation"]["accuracy"] == alone.metrics["validation"]["accuracy"] == 1
    assert report["metrics"]["test"] == report["metrics"]["validation"]
    assert report["rows"] == {"train": 120, "validation": 12, "test": 12}
    # Each process reads a half of every batch.
    assert [entry["step"] for entry in report["history"] if "eval_loss" in entry] == [15, 30, 45, 60]


@pytest.mark.slow
def test_parts_of_an_encoder_that_are_not_trained_do_no_harm(run, tmp_path):
    """The pooler of BERT, which sentence embeddings do without."""
    rows = [{"text": f"my {letter}", "text_pair": f"the {letter} is"} for letter in "abcdefghijklmnop"]
    table = save_jsonl(tmp_path / "pairs.jsonl", rows)
    ended = run("sentence-embedding", train=table, validation=table, batch_size=4, epochs=1)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert json.loads(ended.stdout)["rows"] == {"train": 16, "validation": 16}
