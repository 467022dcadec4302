import shutil
import subprocess
import sys
import time

import pytest
import torch
import transformers
from safetensors.torch import load_file

from encort.runtime.common.errors import InputError, OutputExistsError
from encort.training.resume import unfinished_folder
from encort.training.tasks.next_sentence import NextSentencePrediction
from encort.training.tasks.text_classification import MultiLabelClassification
from encort.training.tasks.token_classification import TokenClassification

SETTINGS = {"epochs": 4, "batch_size": 8, "learning_rate": 3e-3, "seed": 3}
EPOCH = 15
"""Steps of one, of 120 rows."""


class StoppedError(Exception):
    """In place of a training that ends in the middle."""


@pytest.fixture
def output(tmp_path):
    return tmp_path / "checkpoint"


@pytest.fixture
def unfinished(output):
    return unfinished_folder(output)


@pytest.fixture
def train(train_tiny, output):
    """`train(stop_at=step, ...)`: a training that ends without a word when it comes to that step."""

    def run(*, stop_at=None, **options):
        class Stop(transformers.TrainerCallback):
            def on_step_begin(self, _args, state, _control, **_kwargs):
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
def uninterrupted(train_tiny):
    """The weights of a training that nothing stops, by how often it saves."""
    found = {}

    def run(save_steps=None):
        if save_steps not in found:
            found[save_steps] = train_tiny(**SETTINGS, save_steps=save_steps)
        return found[save_steps]

    return run


def evaluations(run):
    return [entry for entry in run.report.history if "eval_loss" in entry]


def assert_same(resumed, whole):
    """The weights that are kept may be of an early epoch; the losses tell of every one."""
    assert resumed.weights == whole.weights
    assert resumed.report.metrics == whole.report.metrics
    losses = [{entry["step"]: entry["eval_loss"] for entry in evaluations(run)} for run in (resumed, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def saved_steps(folder):
    """Of the states that were saved whole."""
    return sorted(int(file.parent.name.split("-")[1]) for file in folder.glob("checkpoint-*/trainer_state.json"))


def kill_after_a_save(command, unfinished, step):
    """-9, which nothing can be done about."""
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


@pytest.mark.parametrize(("save_steps", "killed_after"), [(None, EPOCH), (7, 21)], ids=["epochs", "steps"])
def test_a_killed_training_goes_on_as_if_nothing_had_been(
    train, uninterrupted, tiny_encoder, tables, output, unfinished, monkeypatch, save_steps, killed_after
):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    options = {"model": tiny_encoder, "train": tables[0], "validation": tables[1], "output": output, **SETTINGS}
    options |= {} if save_steps is None else {"save_steps": save_steps}
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
def test_wherever_it_stops_the_weights_become_the_same(train, uninterrupted, stop_at, save_steps):
    train(stop_at=stop_at, save_steps=save_steps)
    assert_same(train(save_steps=save_steps, resume=True), uninterrupted(save_steps))


def test_it_may_stop_more_than_once(train, uninterrupted):
    train(stop_at=EPOCH + 1)
    train(stop_at=2 * EPOCH + 1, resume=True)
    assert_same(train(resume=True), uninterrupted())


def test_what_was_done_before_the_last_save_is_not_done_again(train):
    train(stop_at=3 * EPOCH + 5)  # the state of 3 epochs was saved
    steps = []

    class Count(transformers.TrainerCallback):
        def on_step_begin(self, _args, state, _control, **_kwargs):
            steps.append(state.global_step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transformers.trainer.DEFAULT_CALLBACKS", [*transformers.trainer.DEFAULT_CALLBACKS, Count])
        train(resume=True)
    assert steps == list(range(3 * EPOCH, 4 * EPOCH))


def test_a_half_written_state_is_not_used(train, unfinished, uninterrupted):
    train(stop_at=2 * EPOCH + 1)
    last = unfinished / f"checkpoint-{2 * EPOCH}"
    half = shutil.copytree(last, unfinished / f"checkpoint-{3 * EPOCH}")
    (half / "trainer_state.json").unlink()
    (half / "model.safetensors").write_bytes(b"half")
    assert_same(train(resume=True), uninterrupted())
    assert not unfinished.exists()


def test_a_training_that_saved_nothing_whole_begins_anew(train, unfinished, uninterrupted):
    train(stop_at=5)
    (unfinished / "checkpoint-3").mkdir()
    (unfinished / "checkpoint-3" / "model.safetensors").write_bytes(b"half")
    assert_same(train(), uninterrupted())
    assert not unfinished.exists()


def test_without_anything_to_go_on_with_it_begins(train, uninterrupted):
    assert_same(train(resume=True), uninterrupted())


def test_overwrite_begins_anew(train, unfinished):
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
def test_with_other_settings_it_is_refused(train, tables, unfinished, changes, named):
    train(stop_at=EPOCH + 1)
    with pytest.raises(InputError, match=f"because its plan has changed: {named}.*--overwrite"):
        train(resume=True, train=tables[0], validation=tables[1], **changes)
    assert saved_steps(unfinished) == [EPOCH]


def test_of_the_settings_only_those_that_changed_are_told(train):
    train(stop_at=EPOCH + 1)
    with pytest.raises(InputError, match=r"learning_rate.* 0\.003 became 0\.004") as refused:
        train(resume=True, learning_rate=4e-3)
    assert "batch_size" not in str(refused.value)


def test_other_data_or_another_task_or_model_are_refused(train, tables, unfinished, make_checkpoint, tmp_path):
    train(stop_at=EPOCH + 1)
    other = shutil.copy(tables[0], tmp_path / "other.csv")
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
def test_a_model_that_changed_under_its_name_is_refused(name, train, tiny_encoder, make_checkpoint, tmp_path):
    model = shutil.copytree(tiny_encoder, tmp_path / "model")
    train(stop_at=EPOCH + 1, model=model)
    small = {"hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 48}
    shutil.copy(make_checkpoint(seed=9, layer_norm_eps=1e-6, **small) / name, model)
    with pytest.raises(InputError, match=rf"plan has changed: model_content \{{.*{name}.*\}} became \{{") as refused:
        train(resume=True, model=model)
    assert "tokenizer" not in str(refused.value)


def test_a_model_that_was_only_copied_over_is_the_same(train, tiny_encoder, tmp_path, uninterrupted):
    model = shutil.copytree(tiny_encoder, tmp_path / "model")
    train(stop_at=EPOCH + 1, model=model)
    shutil.copytree(tiny_encoder, model, dirs_exist_ok=True, copy_function=shutil.copyfile)
    assert_same(train(resume=True, model=model), uninterrupted())


def test_the_same_data_under_another_name_is_the_same(train, tables, tmp_path, uninterrupted):
    train(stop_at=EPOCH + 1, train=tables[0], validation=tables[1])
    moved = shutil.copy(tables[0], tmp_path / "moved.csv")
    assert_same(train(resume=True, train=moved, validation=tables[1]), uninterrupted())


def test_with_another_header_it_is_refused(train, tables, tmp_path):
    file = tmp_path / "swapped.csv"
    file.write_text("".join(tables[0].read_text().splitlines(keepends=True)[1:]))
    train(stop_at=EPOCH + 1, train=file, header=["text", "label"])
    with pytest.raises(InputError, match=r"plan has changed: .*header"):
        train(resume=True, train=file, header=["label", "text"])


def test_a_finished_checkpoint_is_not_replaced_by_resume(train, output):
    train(epochs=1)
    before = (output / "model.safetensors").read_bytes()
    with pytest.raises(OutputExistsError, match="--overwrite"):
        train(epochs=1, seed=9, resume=True)
    assert (output / "model.safetensors").read_bytes() == before


def test_a_training_that_replaces_a_checkpoint_can_go_on(train, output, uninterrupted):
    train(epochs=1, seed=8)
    before = (output / "model.safetensors").read_bytes()
    train(stop_at=EPOCH + 1, overwrite=True)
    assert (output / "model.safetensors").read_bytes() == before, "the old one stays until the new one is whole"
    assert_same(train(resume=True, overwrite=True), uninterrupted())


def test_patience_stops_early(train, unfinished):
    run = train(epochs=20, patience=2)
    accuracies = [entry["eval_accuracy"] for entry in evaluations(run)]
    best = accuracies.index(max(accuracies))
    assert len(accuracies) == best + 3 < 20
    assert run.report.metrics["validation"]["accuracy"] == max(accuracies)
    assert not unfinished.exists()


def test_patience_counts_on_after_a_stop(train, train_tiny):
    whole = train_tiny(**{**SETTINGS, "epochs": 20, "patience": 3})
    accuracies = [entry["eval_accuracy"] for entry in evaluations(whole)]
    best = accuracies.index(max(accuracies)) + 1
    # Two evaluations that were no better have been.
    train(stop_at=(best + 2) * EPOCH + 1, epochs=20, patience=3)
    resumed = train(resume=True, epochs=20, patience=3)
    assert len(evaluations(resumed)) == len(evaluations(whole))


def test_more_steps_between_saves_than_there_are_save_once(train, unfinished):
    run = train(epochs=1, save_steps=1000)
    assert run.trainer.state.global_step == EPOCH
    assert run.report.metrics["validation"].keys() == {"accuracy", "macro_f1"}
    assert (run.folder / "loss.svg").is_file()
    assert not unfinished.exists()


def weights(run):
    return load_file(run.folder / "model.safetensors")


@pytest.mark.parametrize("task", ["text", "tokens", "pairs"])
def test_two_batches_of_one_step_learn_as_one_of_both(train_tiny, write, task):
    options = {"epochs": 2, "dropout": 0.0, "learning_rate": 1e-3}
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
    for left, right in zip(*steps, strict=True):
        assert right["loss"] == pytest.approx(left["loss"], rel=1e-3)
        assert right["grad_norm"] == pytest.approx(left["grad_norm"], rel=1e-2)
    for name, tensor in weights(whole).items():
        # A key's bias adds the same to all scores of a query, so that it has no gradient but noise.
        if not name.endswith("key.bias"):
            torch.testing.assert_close(weights(parts)[name], tensor, atol=1e-3, rtol=0)
