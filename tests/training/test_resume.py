import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from encort.runtime.common.errors import InputError, OutputExistsError
from encort.training.resume import unfinished_folder
from encort.training.saved_state import is_complete
from encort.training.tasks.next_sentence import NextSentencePrediction
from encort.training.tasks.text_classification import MultiLabelClassification
from encort.training.tasks.token_classification import TokenClassification

SETTINGS = {"epochs": 4, "batch_size": 8, "learning_rate": 3e-3, "seed": 3}
EPOCH = 15
"""Steps per epoch, with 120 rows."""


class StoppedError(Exception):
    """Stops a training in the middle."""


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "checkpoint"


@pytest.fixture
def unfinished(output: Path) -> Path:
    return unfinished_folder(output)


@pytest.fixture
def train(train_tiny: Callable[..., Any], output: Path) -> Callable[..., Any]:
    """Return `train(stop_at=step, ...)`, a training that stops before that step."""

    def run(*, stop_at: int | None = None, **options: Any) -> Any:
        class Stop(transformers.TrainerCallback):
            def on_step_begin(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
                if state.global_step == stop_at:
                    raise StoppedError

        options = {"output": output, **SETTINGS, **options}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("transformers.trainer.DEFAULT_CALLBACKS", [*transformers.trainer.DEFAULT_CALLBACKS, Stop])
            if stop_at is None:
                return train_tiny(**options)
            with pytest.raises(StoppedError):
                train_tiny(**options)
        return None

    return run


@pytest.fixture(scope="module")
def uninterrupted(train_tiny: Callable[..., Any]) -> Callable[..., Any]:
    """Return `uninterrupted(save_steps)`, a training that is not stopped; each is run once."""
    runs: dict[int | None, Any] = {}

    def run(save_steps: int | None = None) -> Any:
        if save_steps not in runs:
            runs[save_steps] = train_tiny(**SETTINGS, save_steps=save_steps)
        return runs[save_steps]

    return run


def evaluations(run: Any) -> list[dict[str, float]]:
    return [entry for entry in run.report.history if "eval_loss" in entry]


def assert_same(resumed: Any, whole: Any) -> None:
    """Compare the losses of all evaluations too, since the weights may be those of an early epoch."""
    assert resumed.weights == whole.weights
    assert resumed.report.metrics == whole.report.metrics
    losses = [{entry["step"]: entry["eval_loss"] for entry in evaluations(run)} for run in (resumed, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def saved_steps(folder: Path) -> list[int]:
    """Return the steps of the complete states."""
    return sorted(int(state.name.split("-")[1]) for state in folder.glob("checkpoint-*") if is_complete(state))


def kill_after_a_save(command: list[str], unfinished: Path, step: int) -> None:
    """Kill the process with SIGKILL once it has saved this step."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 100
        while not any(saved >= step for saved in saved_steps(unfinished)):
            if process.poll() is not None or time.monotonic() > deadline:
                break
            time.sleep(0.005)
        process.kill()
        stdout, stderr = process.communicate()
    assert process.returncode == -9, stderr
    assert stdout == ""


def test_a_killed_training_ends_with_the_weights_of_an_uninterrupted_one(
    train: Callable[..., Any],
    uninterrupted: Callable[..., Any],
    tiny_encoder: Path,
    tables: tuple[Path, Path],
    output: Path,
    unfinished: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    save_steps, killed_after = 7, 21
    data = {"train": tables[0], "validation": tables[1]}
    options = {"model": tiny_encoder, **data, "output": output, "save_steps": save_steps, **SETTINGS}
    flags = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    command = [sys.executable, "-m", "encort", "train", "text-classification", *flags]
    kill_after_a_save(command, unfinished, killed_after)
    assert not output.exists()
    before = saved_steps(unfinished)[-1]
    assert before < EPOCH * SETTINGS["epochs"], "it was killed too late"

    with pytest.raises(OutputExistsError, match=r"was not finished; go on with --resume, or start anew with --overwr"):
        train(save_steps=save_steps)
    assert saved_steps(unfinished)[-1] == before

    resumed = train(save_steps=save_steps, resume=True)
    assert_same(resumed, uninterrupted(save_steps))
    assert not unfinished.exists()


@pytest.mark.parametrize(
    ("stop_at", "save_steps"),
    [
        (EPOCH, None),
        (EPOCH + 7, None),
        (3 * EPOCH + 1, None),
        (12, 7),
        (23, 7),
    ],
)
def test_a_resumed_training_ends_with_the_same_weights(
    train: Callable[..., Any], uninterrupted: Callable[..., Any], stop_at: int | None, save_steps: int | None
) -> None:
    train(stop_at=stop_at, save_steps=save_steps)
    assert_same(train(save_steps=save_steps, resume=True), uninterrupted(save_steps))


def test_a_training_can_be_resumed_twice(train: Callable[..., Any], uninterrupted: Callable[..., Any]) -> None:
    train(stop_at=EPOCH + 1)
    train(stop_at=2 * EPOCH + 1, resume=True)
    assert_same(train(resume=True), uninterrupted())


def test_steps_before_the_last_save_are_not_repeated(train: Callable[..., Any]) -> None:
    train(stop_at=3 * EPOCH + 5)  # after the save of the third epoch
    steps = []

    class Count(transformers.TrainerCallback):
        def on_step_begin(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
            steps.append(state.global_step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transformers.trainer.DEFAULT_CALLBACKS", [*transformers.trainer.DEFAULT_CALLBACKS, Count])
        train(resume=True)
    assert steps == list(range(3 * EPOCH, 4 * EPOCH))


def test_an_incomplete_state_is_not_used(
    train: Callable[..., Any], unfinished: Path, uninterrupted: Callable[..., Any]
) -> None:
    train(stop_at=2 * EPOCH + 1)
    complete = unfinished / f"checkpoint-{2 * EPOCH}"
    incomplete = shutil.copytree(complete, unfinished / f"checkpoint-{3 * EPOCH}")
    (incomplete / "sha256.json").unlink()
    (incomplete / "trainer_state.json").write_bytes(b"")  # it was stopped while it wrote the last file
    (incomplete / "model.safetensors").write_bytes(b"half")
    assert_same(train(resume=True), uninterrupted())
    assert not unfinished.exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / f"checkpoint-{EPOCH}" / "optimizer.pt").unlink(), "it lacks optimizer.pt"),
        (lambda folder: (folder / f"checkpoint-{EPOCH}" / "trainer_state.json").write_text("{"), "trainer_state.json"),
        (lambda folder: (folder / "plan.json").write_text("{"), "plan.json, the plan of the unfinished training"),
    ],
)
def test_a_damaged_state_is_refused(
    damage: Callable[[Path], Any], message: str, train: Callable[..., Any], unfinished: Path
) -> None:
    train(stop_at=EPOCH)
    damage(unfinished)
    with pytest.raises(InputError, match=r"is damaged \(.*; start anew with --overwrite") as refusal:
        train(resume=True)
    assert message in str(refusal.value)
    assert saved_steps(unfinished) == [EPOCH]


def test_a_training_without_a_complete_state_starts_again(
    train: Callable[..., Any], unfinished: Path, uninterrupted: Callable[..., Any]
) -> None:
    train(stop_at=5)
    (unfinished / "checkpoint-3").mkdir()
    (unfinished / "checkpoint-3" / "model.safetensors").write_bytes(b"half")
    assert_same(train(), uninterrupted())
    assert not unfinished.exists()


def test_resume_without_a_state_starts_again(train: Callable[..., Any], uninterrupted: Callable[..., Any]) -> None:
    assert_same(train(resume=True), uninterrupted())


def test_overwrite_starts_again(train: Callable[..., Any], unfinished: Path) -> None:
    train(stop_at=EPOCH + 1)
    run = train(overwrite=True, epochs=1, seed=8)
    assert run.weights == train(output=run.folder.with_name("other"), epochs=1, seed=8).weights
    assert not unfinished.exists()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"learning_rate": 4e-3}, r"learning_rate 0\.003 became 0\.004;"),
        ({"seed": 4, "epochs": 6}, "epochs 4 became 6; seed 3 became 4;"),
        ({"from_scratch": True}, "from_scratch False became True"),
        ({"columns": {"text": "text"}}, r"columns \{\} became \{'text': 'text'\}"),
    ],
)
def test_resume_with_other_settings_is_refused(
    train: Callable[..., Any], tables: tuple[Path, Path], unfinished: Path, changes: dict[str, Any], named: str
) -> None:
    train(stop_at=EPOCH + 1)
    with pytest.raises(InputError, match=f"because its plan has changed: {named}.*--overwrite"):
        train(resume=True, train=tables[0], validation=tables[1], **changes)
    assert saved_steps(unfinished) == [EPOCH]


def test_the_error_names_only_the_changed_settings(train: Callable[..., Any]) -> None:
    train(stop_at=EPOCH + 1)
    with pytest.raises(InputError, match=r"learning_rate.* 0\.003 became 0\.004") as refused:
        train(resume=True, learning_rate=4e-3)
    assert "batch_size" not in str(refused.value)


def test_resume_with_other_data_task_or_model_is_refused(
    train: Callable[..., Any],
    tables: tuple[Path, Path],
    unfinished: Path,
    make_checkpoint: Callable[..., Path],
    tmp_path: Path,
) -> None:
    train(stop_at=EPOCH + 1)
    other = Path(shutil.copy(tables[0], tmp_path / "other.csv"))
    with other.open("a") as file:
        file.write("hello again,greeting\n")
    with pytest.raises(InputError, match=r"data \{'train': .* became \{'train': "):
        train(resume=True, train=other, validation=tables[1])
    with pytest.raises(InputError, match=r"data .*'test'"):
        train(resume=True, train=tables[0], validation=tables[1], test=tables[1])
    small = {"hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 48}
    with pytest.raises(InputError, match=r"model '.*' became '"):
        train(resume=True, model=make_checkpoint(seed=9, **small))
    with pytest.raises(InputError, match="task 'text-classification' became 'multi-label-classification'"):
        train(task=MultiLabelClassification(), resume=True)
    assert saved_steps(unfinished) == [EPOCH]


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_resume_with_a_model_whose_files_changed_is_refused(
    name: str, train: Callable[..., Any], tiny_encoder: Path, make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    model = shutil.copytree(tiny_encoder, tmp_path / "model")
    train(stop_at=EPOCH + 1, model=model)
    small = {"hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 48}
    shutil.copy(make_checkpoint(seed=9, layer_norm_eps=1e-6, **small) / name, model)
    with pytest.raises(InputError, match=rf"plan has changed: model_content \{{.*{name}.*\}} became \{{") as refused:
        train(resume=True, model=model)
    assert "tokenizer" not in str(refused.value)


def test_resume_with_a_copied_model_is_accepted(
    train: Callable[..., Any], tiny_encoder: Path, tmp_path: Path, uninterrupted: Callable[..., Any]
) -> None:
    model = shutil.copytree(tiny_encoder, tmp_path / "model")
    train(stop_at=EPOCH + 1, model=model)
    shutil.copytree(tiny_encoder, model, dirs_exist_ok=True, copy_function=shutil.copyfile)
    assert_same(train(resume=True, model=model), uninterrupted())


def test_resume_with_moved_data_is_accepted(
    train: Callable[..., Any], tables: tuple[Path, Path], tmp_path: Path, uninterrupted: Callable[..., Any]
) -> None:
    train(stop_at=EPOCH + 1, train=tables[0], validation=tables[1])
    moved = shutil.copy(tables[0], tmp_path / "moved.csv")
    assert_same(train(resume=True, train=moved, validation=tables[1]), uninterrupted())


def test_resume_with_another_header_is_refused(
    train: Callable[..., Any], tables: tuple[Path, Path], tmp_path: Path
) -> None:
    file = tmp_path / "swapped.csv"
    file.write_text("".join(tables[0].read_text().splitlines(keepends=True)[1:]))
    train(stop_at=EPOCH + 1, train=file, header=["text", "label"])
    with pytest.raises(InputError, match=r"plan has changed: .*header"):
        train(resume=True, train=file, header=["label", "text"])


def test_resume_does_not_replace_a_finished_checkpoint(train: Callable[..., Any], output: Path) -> None:
    train(epochs=1)
    before = (output / "model.safetensors").read_bytes()
    with pytest.raises(OutputExistsError, match="--overwrite"):
        train(epochs=1, seed=9, resume=True)
    assert (output / "model.safetensors").read_bytes() == before


def test_a_training_that_overwrites_a_checkpoint_can_be_resumed(
    train: Callable[..., Any], output: Path, uninterrupted: Callable[..., Any]
) -> None:
    train(epochs=1, seed=8)
    before = (output / "model.safetensors").read_bytes()
    train(stop_at=EPOCH + 1, overwrite=True)
    assert (output / "model.safetensors").read_bytes() == before, (
        "the old checkpoint stays until the new one is complete"
    )
    assert_same(train(resume=True, overwrite=True), uninterrupted())


def test_patience_stops_a_training_early(train: Callable[..., Any], unfinished: Path) -> None:
    run = train(epochs=20, patience=2)
    accuracies = [entry["eval_accuracy"] for entry in evaluations(run)]
    best = accuracies.index(max(accuracies))
    assert len(accuracies) == best + 3 < 20
    assert run.report.metrics["validation"]["accuracy"] == max(accuracies)
    assert not unfinished.exists()


def test_patience_counts_evaluations_before_a_stop(train: Callable[..., Any], train_tiny: Callable[..., Any]) -> None:
    whole = train_tiny(**{**SETTINGS, "epochs": 20, "patience": 3})
    accuracies = [entry["eval_accuracy"] for entry in evaluations(whole)]
    best = accuracies.index(max(accuracies)) + 1
    # It stops after two of the three evaluations without a better score.
    train(stop_at=(best + 2) * EPOCH + 1, epochs=20, patience=3)
    resumed = train(resume=True, epochs=20, patience=3)
    assert len(evaluations(resumed)) == len(evaluations(whole))


def test_a_training_shorter_than_save_steps_is_saved_once(train: Callable[..., Any], unfinished: Path) -> None:
    run = train(epochs=1, save_steps=1000)
    assert run.trainer.state.global_step == EPOCH
    assert run.report.metrics["validation"].keys() == {"accuracy", "macro_f1"}
    assert (run.folder / "loss.svg").is_file()
    assert not unfinished.exists()


def weights(run: Any) -> dict[str, torch.Tensor]:
    return load_file(run.folder / "model.safetensors")


@pytest.mark.parametrize("task", ["text", "tokens", "pairs"])
def test_accumulated_batches_learn_like_one_larger_batch(
    train_tiny: Callable[..., Any], write: Callable[..., Path], task: str
) -> None:
    options: dict[str, Any] = {"epochs": 2, "dropout": 0.0, "learning_rate": 1e-3}
    if task == "tokens":
        table = write("words.conll", "".join(f"card\tB-A\n{letter}\tO\nis\tO\n\n" for letter in "abcdefghijklmnop"))
        options |= {"task": TokenClassification(), "train": table, "validation": table}
    if task == "pairs":
        rows = "".join(f"my {letter},is lost,{number % 2}\n" for number, letter in enumerate("abcdefghijklmnop"))
        table = write("pairs.csv", f"text,text_pair,label\n{rows}")
        options |= {"task": NextSentencePrediction(), "train": table, "validation": table}
    whole = train_tiny(batch_size=8, **options)
    parts = train_tiny(batch_size=4, gradient_accumulation=2, **options)
    assert parts.trainer.state.global_step == whole.trainer.state.global_step
    steps = [[entry for entry in run.report.history if "grad_norm" in entry] for run in (whole, parts)]
    for step, accumulated in zip(*steps, strict=True):
        assert accumulated["loss"] == pytest.approx(step["loss"], rel=1e-3)
        assert accumulated["grad_norm"] == pytest.approx(step["grad_norm"], rel=1e-2)
    for name, tensor in weights(whole).items():
        # The bias of a key adds the same number to all scores of a query, so that its gradient is only noise.
        if not name.endswith("key.bias"):
            torch.testing.assert_close(weights(parts)[name], tensor, atol=1e-3, rtol=0)
