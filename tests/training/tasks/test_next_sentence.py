"""Pairs of texts: BERT's next-sentence head, and the dual encoder."""

import csv
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy

import encort
from encort.export.exporter import export_bundle
from encort.runtime.cli.main import group
from encort.runtime.common.errors import CheckpointError, DatasetError
from encort.runtime.common.labelled_rows.cells import RowError
from encort.training.commands import TASKS as TASKS_BY_NAME
from encort.training.data.examples import Examples
from encort.training.dual_encoder import DualEncoderForNextSentence
from encort.training.features import IGNORED, Collator
from encort.training.pretrained import Pretrained
from encort.training.settings import TrainingSettings, default_learning_rate
from encort.training.tasks.next_sentence import DualEncoderTask, NextSentencePrediction

Run = Any  # of tests/training/conftest.py, which cannot be imported
TrainTiny = Callable[..., Run]
Pair = tuple[str, str, int]

PAIRS: list[Pair] = [
    ("What music do you like?", "I like Rock music.", 1),
    ("What is your favorite food?", "I like sushi the best", 1),
    ("What is your favorite color?", "I'm going to be a doctor", 0),
    ("What is your favorite song?", "Tokyo olympic game in 2020 was postponed", 0),
    ("Do you like watching TV shows?", "Yeah, I often watch it in my spare time", 1),
]
UNKNOWN = ("my card is lost", "hello", -1)
TASKS = [NextSentencePrediction, DualEncoderTask]
EXAMPLES = Examples(train=None, validation=None, labels=["a", "b"])


def save_pairs(file: Path, pairs: Sequence[Pair]) -> Path:
    with file.open("w", newline="") as target:
        csv.writer(target).writerows([("text", "text_pair", "label"), *pairs])
    return file


@pytest.fixture
def pairs(tmp_path: Path) -> Callable[..., Path]:
    """`pairs(*rows, name=)`: a table of these rows."""
    return lambda *rows, name="pairs": save_pairs(tmp_path / f"{name}.csv", rows)


@pytest.fixture(scope="module")
def train_pairs(train_tiny: TrainTiny, tmp_path_factory: pytest.TempPathFactory) -> TrainTiny:
    """`train_pairs(task)`: a run that learns the five pairs by heart; they are the validation data too."""

    def run(task: NextSentencePrediction, **options: Any) -> Run:
        table = save_pairs(tmp_path_factory.mktemp("pairs") / "pairs.csv", PAIRS)
        defaults = {"train": table, "validation": table, "epochs": 30, "batch_size": 5, "learning_rate": 2e-3}
        return train_tiny(task=task, **{**defaults, "dropout": 0.0, **options})

    return run


@pytest.fixture(scope="module")
def bert_head(train_pairs: TrainTiny) -> Run:
    return train_pairs(NextSentencePrediction())


@pytest.fixture(scope="module")
def two_encoders(train_pairs: TrainTiny) -> Run:
    return train_pairs(DualEncoderTask(), from_scratch=True)


def encoded(task: NextSentencePrediction, pretrained: Pretrained, *rows: Pair) -> dict[str, torch.Tensor]:
    names = ("text", "text_pair", "label")
    examples = [task.schema.rows.parse(dict(zip(names, row, strict=True))) for row in rows]
    columns = task.encode({name: [row[name] for row in examples] for name in names}, pretrained, EXAMPLES)
    return Collator(0)([dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)])


@torch.inference_mode()
def predict(model: Any, task: Any, pretrained: Pretrained) -> list[int]:
    return model.eval()(**encoded(task, pretrained, *PAIRS)).logits.argmax(dim=1).tolist()


def served_labels(folder: Path, bundle: Path) -> list[str]:
    export_bundle(folder, bundle, variants=["fp32"])
    with encort.load(bundle) as model:
        return [result.label for result in model.classify([pair[:2] for pair in PAIRS])]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    ("label", "meaning"),
    [("1", 1), (1, 1), (True, 1), ("TRUE", 1), ("is_next", 1), ("0", 0), (False, 0), (" not_next ", 0), (-1, -1)],
)
def test_labels_can_be_written_in_several_ways(task: Any, label: Any, meaning: int) -> None:
    assert task.schema.rows.parse({"text": "a", "text_pair": "b", "label": label})["label"] == meaning


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"label": "2"}, "label is none of 1, true, is_next, 0, false, not_next, -1"),
        ({"label": None}, "no label"),
        ({"text_pair": ""}, "no text_pair"),
        ({"text": " "}, "text is empty"),
    ],
)
def test_a_row_that_is_no_labelled_pair_has_a_problem(changed: dict[str, Any], problem: str) -> None:
    with pytest.raises(RowError, match=f"^{problem}$"):
        NextSentencePrediction.schema.rows.parse({"text": "a", "text_pair": "b", "label": "1", **changed})


@pytest.mark.parametrize("label", [0, -1])
def test_pairs_of_one_label_are_refused(train_tiny: TrainTiny, pairs: Callable[..., Path], label: Any) -> None:
    table = pairs(*[(f"a {number}", "b", label if number else 0) for number in range(12)])
    with pytest.raises(DatasetError, match="has no pairs of both kinds, labelled 1 and 0"):
        train_tiny(task=DualEncoderTask(), train=table)


def test_the_first_logit_of_berts_head_says_that_a_text_follows(bert_head: Run) -> None:
    assert bert_head.report.labels == ["is_next", "not_next"]
    assert bert_head.config["id2label"] == {"0": "is_next", "1": "not_next"}
    model = transformers.BertForNextSentencePrediction.from_pretrained(bert_head.folder)
    pretrained = Pretrained.open(str(bert_head.folder), TrainingSettings())
    assert predict(model, NextSentencePrediction(), pretrained) == [0, 0, 1, 1, 0]


def test_berts_head_is_served_with_the_same_labels(bert_head: Run, tmp_path: Path) -> None:
    expected = ["is_next", "is_next", "not_next", "not_next", "is_next"]
    assert served_labels(bert_head.folder, tmp_path / "served.bundle") == expected


@pytest.mark.parametrize("run", ["bert_head", "two_encoders"])
def test_the_loss_falls_and_all_pairs_are_learned(run: str, request: pytest.FixtureRequest) -> None:
    report = request.getfixturevalue(run).report
    losses = [entry["loss"] for entry in report.history if "loss" in entry]
    assert losses[0] > 0.3
    assert losses[-1] < 0.1
    assert report.metrics["validation"]["accuracy"] == 1
    assert sorted(report.label_counts.values()) == [2, 3]


def test_a_pretrained_head_is_kept(bert_head: Run) -> None:
    pretrained = Pretrained.open(str(bert_head.folder), TrainingSettings())
    network = NextSentencePrediction().network(pretrained, EXAMPLES)
    trained = transformers.BertForNextSentencePrediction.from_pretrained(bert_head.folder)
    assert torch.equal(network.cls.seq_relationship.weight, trained.cls.seq_relationship.weight)


@pytest.mark.parametrize(("task", "unknown"), [(NextSentencePrediction, IGNORED), (DualEncoderTask, -1)])
@torch.inference_mode()
def test_the_loss_ignores_unknown_pairs(task: Any, unknown: int, tiny_encoder: Path) -> None:
    pretrained = Pretrained.open(str(tiny_encoder), TrainingSettings())
    network, batch = task().network(pretrained, EXAMPLES).eval(), encoded(task(), pretrained, *PAIRS)
    right = torch.tensor([task.column_of[label] for *_, label in PAIRS])
    assert torch.equal(batch["labels"], right)
    torch.testing.assert_close(network(**batch).loss, cross_entropy(network(**batch).logits, right))
    batch["labels"][[0, 3]] = unknown
    logits = network(**batch).logits[[1, 2, 4]]
    torch.testing.assert_close(network(**batch).loss, cross_entropy(logits, right[[1, 2, 4]]))


@pytest.mark.parametrize("task", TASKS)
def test_unknown_pairs_are_left_out_of_what_is_learned(task: Any, tiny_encoder: Path) -> None:
    pretrained = Pretrained.open(str(tiny_encoder), TrainingSettings())
    expected = encoded(task(), pretrained, *PAIRS)
    batch = encoded(task(), pretrained, UNKNOWN, *PAIRS, UNKNOWN)
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        name: tensor.tolist() for name, tensor in expected.items()
    }


@pytest.mark.parametrize("task", TASKS)
def test_a_whole_batch_of_the_tokenizer_may_be_unknown_pairs(
    train_pairs: TrainTiny, pairs: Callable[..., Path], task: Any
) -> None:
    run = train_pairs(task(), train=pairs(*PAIRS, *[UNKNOWN] * 2000), epochs=1)
    assert run.trainer.state.global_step == 1


@pytest.mark.parametrize("task", TASKS)
def test_unknown_pairs_are_neither_counted_nor_measured(
    train_pairs: TrainTiny, pairs: Callable[..., Path], task: Any
) -> None:
    table = pairs(*PAIRS, UNKNOWN, UNKNOWN)
    run = train_pairs(task(), train=table, validation=table, batch_size=7, epochs=40)
    assert run.report.metrics["validation"]["accuracy"] == 1
    follows, not_follows = (task.names[task.column_of[label]] for label in (1, 0))
    assert run.report.label_counts == {follows: 3, not_follows: 2}


@pytest.mark.parametrize("task", TASKS)
def test_a_batch_of_unknown_pairs_alone_does_no_harm(
    train_pairs: TrainTiny, pairs: Callable[..., Path], task: Any
) -> None:
    table = pairs(*PAIRS, *[UNKNOWN] * 6)  # more than known pairs: of batches of two, one has none of these
    run = train_pairs(task(), train=table, validation=table, batch_size=1, epochs=1)
    assert all(entry["eval_loss"] >= 0 for entry in run.report.history if "eval_loss" in entry)
    assert "NaN" not in (run.folder / "training.json").read_text()


def test_two_encoders_learn_the_five_pairs(two_encoders: Run, tiny_encoder: Path) -> None:
    model = DualEncoderForNextSentence.from_pretrained(two_encoders.folder)
    assert predict(model, DualEncoderTask(), Pretrained.open(str(tiny_encoder), TrainingSettings())) == [1, 1, 0, 0, 1]
    assert two_encoders.config["architectures"] == ["DualEncoderForNextSentence"]
    assert two_encoders.config["id2label"] == {"0": "0", "1": "1"}


def test_two_encoders_are_served_with_the_same_labels(two_encoders: Run, tmp_path: Path) -> None:
    assert served_labels(two_encoders.folder, tmp_path / "served.bundle") == ["1", "1", "0", "0", "1"]


@torch.inference_mode()
def test_a_saved_dual_encoder_gives_the_same_logits_again(two_encoders: Run, tiny_encoder: Path) -> None:
    again = DualEncoderForNextSentence.from_pretrained(two_encoders.folder).eval()
    batch = encoded(DualEncoderTask(), Pretrained.open(str(tiny_encoder), TrainingSettings()), *PAIRS)
    torch.testing.assert_close(again(**batch).logits, two_encoders.trainer.model.eval()(**batch).logits)


def test_a_dual_encoder_is_trained_further(two_encoders: Run, train_pairs: TrainTiny) -> None:
    again = train_pairs(DualEncoderTask(), model=two_encoders.folder, epochs=1, learning_rate=1e-6)
    assert again.config == two_encoders.config
    before, after = (load_file(run.folder / "model.safetensors") for run in (two_encoders, again))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, atol=1e-5, rtol=0)


def test_a_dual_encoder_has_a_default_learning_rate(two_encoders: Run, train_pairs: TrainTiny) -> None:
    run = train_pairs(DualEncoderTask(), model=two_encoders.folder, epochs=1, learning_rate=None)
    assert run.report.settings.learning_rate == default_learning_rate(24)


def test_a_dual_encoder_that_lacks_weights_is_refused(two_encoders: Run, tmp_path: Path) -> None:
    folder = shutil.copytree(two_encoders.folder, tmp_path / "copy")
    weights = load_file(folder / "model.safetensors")
    del weights["encoder2.pooler.dense.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks weights .*, encoder2\.pooler\.dense\.weight among them"):
        DualEncoderTask().network(Pretrained.open(str(folder), TrainingSettings()), EXAMPLES)


@pytest.mark.parametrize("name", [name for name in TASKS_BY_NAME if name != "dual-encoder"])
def test_no_other_task_takes_a_dual_encoder(
    name: str, two_encoders: Run, pairs: Callable[..., Path], tmp_path: Path
) -> None:
    output = tmp_path / "output"
    options = ["--model", two_encoders.folder, "--train", pairs(*PAIRS * 2), "--output", output]
    result = CliRunner().invoke(group, ["train", name, *map(str, options)])
    message = "checkpoint is a dual encoder, which only the task dual-encoder can train further"
    assert isinstance(result.exception, CheckpointError | DatasetError)
    assert message in str(result.exception)
    assert not output.exists()


def test_the_settings_of_a_dual_encoder_make_a_new_one(two_encoders: Run) -> None:
    settings = TrainingSettings(dropout=0.25)
    pretrained = Pretrained.open(
        str(two_encoders.folder), settings, from_scratch=True, config_changes={"num_hidden_layers": 2}
    )
    network = DualEncoderTask().network(pretrained, EXAMPLES)
    for encoder in (network.encoder1, network.encoder2):
        assert len(encoder.encoder.layer) == 2
        assert {layer.p for layer in encoder.modules() if isinstance(layer, torch.nn.Dropout)} == {0.25}
    trained = load_file(two_encoders.folder / "model.safetensors")
    assert not torch.equal(network.classifier.weight, trained["classifier.weight"])


def test_two_new_encoders_have_different_weights(tiny_encoder: Path) -> None:
    network = DualEncoderTask().network(
        Pretrained.open(str(tiny_encoder), TrainingSettings(), from_scratch=True), EXAMPLES
    )
    first, second = network.encoder1.state_dict(), network.encoder2.state_dict()
    name = "encoder.layer.0.attention.self.query.weight"
    assert not torch.equal(first[name], second[name])
    expected_std = network.config.encoder1.initializer_range
    assert float(first[name].std()) == pytest.approx(expected_std, rel=0.1)
    assert not first["embeddings.word_embeddings.weight"][0].any(), "the padding token"


def test_both_encoders_start_with_the_pretrained_weights(tiny_encoder: Path) -> None:
    network = DualEncoderTask().network(Pretrained.open(str(tiny_encoder), TrainingSettings()), EXAMPLES)
    expected = transformers.BertModel.from_pretrained(tiny_encoder).state_dict()
    for encoder in (network.encoder1, network.encoder2):
        weights = encoder.state_dict()
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())
    pointers = [{tensor.data_ptr() for tensor in part.parameters()} for part in (network.encoder1, network.encoder2)]
    assert not set.intersection(*pointers), "the encoders must not share weights"
    assert network.classifier.in_features == 2 * network.config.encoder1.hidden_size


def test_the_second_encoder_reads_the_texts_in_the_other_order(tiny_encoder: Path) -> None:
    pretrained = Pretrained.open(str(tiny_encoder), TrainingSettings())
    batch = encoded(DualEncoderTask(), pretrained, ("my card", "is lost now", 1), ("hello", "the pin", 0))
    other = encoded(DualEncoderTask(), pretrained, ("is lost now", "my card", 1), ("the pin", "hello", 0))
    for name in ("input_ids", "token_type_ids"):
        assert batch[f"reversed_{name}"].tolist() == other[name].tolist()
    assert batch["attention_mask"].tolist() == other["attention_mask"].tolist()
    assert "reversed_attention_mask" not in batch
    assert batch["token_type_ids"][0].tolist()[:4] == [0, 0, 0, 0]
    assert batch["labels"].tolist() == [1, 0]


@torch.inference_mode()
def test_padding_changes_no_logit_of_two_encoders(tiny_encoder: Path) -> None:
    pretrained = Pretrained.open(str(tiny_encoder), TrainingSettings())
    network = DualEncoderTask().network(pretrained, EXAMPLES).eval()
    together = network(**encoded(DualEncoderTask(), pretrained, *PAIRS)).logits
    alone = [network(**encoded(DualEncoderTask(), pretrained, pair)).logits for pair in PAIRS]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=0)


def test_pairs_over_the_limit_are_cut_the_same_in_both_orders(tiny_encoder: Path) -> None:
    pretrained = Pretrained.open(str(tiny_encoder), TrainingSettings(max_length=9))
    batch = encoded(DualEncoderTask(), pretrained, ("my card is lost the pin", "hello my card play is", 1))
    assert batch["input_ids"].shape == batch["reversed_input_ids"].shape == (1, 9)


@pytest.mark.parametrize("run", ["bert_head", "two_encoders"])
def test_weights_decay_but_biases_and_layer_norms_do_not(run: str, request: pytest.FixtureRequest) -> None:
    trainer = request.getfixturevalue(run).trainer
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    groups = trainer.optimizer.param_groups
    decay = {names[id(weight)]: group["weight_decay"] for group in groups for weight in group["params"]}
    assert decay.keys() == set(names.values())
    assert {name for name, rate in decay.items() if rate == 0} == {
        name for name in decay if name.endswith("bias") or "LayerNorm" in name
    }
    assert set(decay.values()) == {0, 0.01}


@pytest.fixture
def electra(tiny_encoder: Path, tmp_path: Path) -> Path:
    """An encoder that is no BERT."""
    config = transformers.ElectraConfig(**transformers.BertConfig.from_pretrained(tiny_encoder).to_dict())
    transformers.ElectraModel(config).save_pretrained(tmp_path / "electra")
    transformers.AutoTokenizer.from_pretrained(tiny_encoder).save_pretrained(tmp_path / "electra")
    return tmp_path / "electra"


@pytest.mark.parametrize("from_scratch", [True, False])
def test_two_encoders_of_another_architecture_are_refused(
    train_tiny: TrainTiny, pairs: Callable[..., Path], electra: Path, tmp_path: Path, from_scratch: bool
) -> None:
    with pytest.raises(CheckpointError, match="electra is no BERT; a dual encoder can be made from a BERT only"):
        train_tiny(
            task=DualEncoderTask(),
            model=electra,
            train=pairs(*PAIRS),
            validation=pairs(*PAIRS),
            output=tmp_path / "output",
            from_scratch=from_scratch,
        )
    assert not (tmp_path / "output").exists()


def test_a_refused_encoder_leaves_nothing_behind(
    train_tiny: TrainTiny, pairs: Callable[..., Path], electra: Path, tmp_path: Path
) -> None:
    table = pairs(*PAIRS)
    with pytest.raises(CheckpointError):
        train_tiny(task=DualEncoderTask(), model=electra, train=table, validation=table, output=tmp_path / "output")
    assert {file.name for file in tmp_path.iterdir()} == {"pairs.csv", "electra"}
