"""SPLADE: its loss and its checkpoints are those of sentence-transformers."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import encort
from encort.export.exporter import export_bundle
from encort.runtime.common.errors import CheckpointError, DatasetError, InputError
from encort.training.features import Collator
from encort.training.pretrained import Pretrained
from encort.training.settings import TrainingSettings
from encort.training.tasks.retrieval.sparse_embedding import SparseEmbeddingTask

Run = Any  # of tests/training/conftest.py, which cannot be imported
Pairs = Callable[..., Path]

ROWS: dict[str, Sequence[Any]] = {
    "query": ["my card", "the pin is lost", "hello"],
    "document": ["the card is lost my card", "change the pin", "hello my"],
    "negatives": [["play", "the play is my play"], ["pin"], ["change"]],
}
WITHOUT = ROWS | {"negatives": [None] * 3}


@pytest.fixture
def run(train_tiny: Callable[..., Run], tiny_words: Path) -> Callable[..., Run]:
    """`run(train=file, ...)`: a training of SPLADE whose validation data is its training data."""

    def start(*, train: Path, task: SparseEmbeddingTask | None = None, **options: Any) -> Run:
        options = {"model": tiny_words, "validation": train, "epochs": 2, "batch_size": 6, **options}
        return train_tiny(task=task or SparseEmbeddingTask(), train=train, **options)

    return start


def batch_of(rows: dict[str, Sequence[Any]], pretrained: Pretrained) -> dict[str, torch.Tensor]:
    columns = SparseEmbeddingTask().encode(rows, pretrained, None)
    count = len(rows["query"])
    return Collator(0)([{name: values[row] for name, values in columns.items()} for row in range(count)])


@pytest.fixture
def loss(tiny_words: Path) -> Callable[..., dict[str, torch.Tensor]]:
    """`loss(rows, warmth=, **weights)`: outputs of the network for a batch, in training without dropout."""

    def measure(rows: dict[str, Sequence[Any]], warmth: float = 1.0, **weights: float) -> Any:
        pretrained = Pretrained.open(str(tiny_words), TrainingSettings(dropout=0.0))
        network = SparseEmbeddingTask(**weights).network(pretrained, None).train()
        network.warmth = warmth
        with torch.no_grad():
            return network(**batch_of(rows, pretrained))

    return measure


@pytest.mark.parametrize("rows", [WITHOUT, ROWS], ids=["pairs", "with negatives"])
def test_the_loss_is_that_of_sentence_transformers(
    rows: dict[str, Sequence[Any]],
    loss: Callable[..., dict[str, torch.Tensor]],
    run: Callable[..., Run],
    pairs: Pairs,
) -> None:
    library = pytest.importorskip("sentence_transformers", minversion="5.0").sparse_encoder
    folder = run(train=pairs(), epochs=1, learning_rate=1e-9, weight_decay=0).folder
    model = library.SparseEncoder(str(folder), device="cpu")
    ranking = library.losses.SparseMultipleNegativesRankingLoss(model)
    splade = library.losses.SpladeLoss(model, ranking, document_regularizer_weight=0.2, query_regularizer_weight=0.3)
    negatives = [text for texts in rows["negatives"] for text in texts or []]
    texts = [rows["query"], rows["document"], *([negatives] if negatives else [])]
    with torch.no_grad():
        theirs = splade([model.preprocess(list(part)) for part in texts])
    ours = loss(rows, query_flops=0.3, document_flops=0.2)
    torch.testing.assert_close(ours["loss"], sum(theirs.values()), rtol=1e-4, atol=1e-4)
    assert float(theirs["query_regularizer_loss"]) > 0.1
    half = loss(rows, warmth=0.5, query_flops=0.3, document_flops=0.2)
    penalties = theirs["query_regularizer_loss"] + theirs["document_regularizer_loss"]
    torch.testing.assert_close(ours["loss"] - half["loss"], penalties / 2, rtol=1e-3, atol=1e-3)


def test_copies_of_the_document_and_documents_of_an_equal_query_are_no_negatives(
    loss: Callable[..., dict[str, torch.Tensor]],
) -> None:
    plain = loss({name: values[:2] for name, values in WITHOUT.items()}, query_flops=0, document_flops=0)
    first, second = ROWS["query"][:2]
    same_document = {
        "query": [first, second],
        "document": ROWS["document"][:2],
        "negatives": [[ROWS["document"][0]], [ROWS["document"][1]]],
    }
    # Each query has the document of the other one twice.
    doubled = loss(same_document, query_flops=0, document_flops=0)
    assert torch.equal(doubled["rank"] > 1, plain["rank"] > 1)
    assert doubled["loss"] > plain["loss"]
    same_query = {"query": [first, first], "document": ROWS["document"][:2], "negatives": [None, None]}
    alone = loss(same_query, query_flops=0, document_flops=0)
    assert alone["loss"] == 0
    assert alone["rank"].tolist() == [1, 1]


def test_penalties_rise_with_the_square_of_the_step_to_a_third_of_the_training(
    run: Callable[..., Run], pairs: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []

    class Watch(transformers.TrainerCallback):  # type: ignore[misc] # untyped
        def on_step_end(self, _args: Any, _state: Any, _control: Any, model: Any, **_kwargs: Any) -> None:
            seen.append(model.warmth)

    monkeypatch.setattr("transformers.trainer.DEFAULT_CALLBACKS", [*transformers.trainer.DEFAULT_CALLBACKS, Watch])
    run(train=pairs(), epochs=3, batch_size=6)
    assert seen[:5] == pytest.approx([0, 1 / 16, 4 / 16, 9 / 16, 1])
    assert set(seen[4:]) == {1.0}
    assert len(seen) == 12


def test_pairs_are_learned_and_penalties_make_words_rare(run: Callable[..., Run], pairs: Pairs) -> None:
    settings = {"train": pairs(), "epochs": 25, "learning_rate": 1e-3}
    free = run(task=SparseEmbeddingTask(query_flops=0, document_flops=0), **settings)
    strict = run(task=SparseEmbeddingTask(query_flops=0.1, document_flops=0.1), **settings)
    metrics = free.report.metrics["validation"]
    assert metrics.keys() == {"accuracy_at_1", "mrr", "mean_query_words", "mean_document_words"}
    mrrs = [entry["eval_mrr"] for entry in free.report.history if "eval_mrr" in entry]
    assert metrics["mrr"] > mrrs[0] + 0.1
    losses = [entry["eval_loss"] for entry in free.report.history if "eval_loss" in entry]
    assert losses[-1] < losses[0]
    fewer = strict.report.metrics["validation"]
    assert fewer["mean_query_words"] < 0.8 * metrics["mean_query_words"]
    assert fewer["mean_document_words"] < 0.8 * metrics["mean_document_words"]
    page = (strict.folder / "training.md").read_text()
    assert f"| {fewer['mean_query_words']:.1f} | {fewer['mean_document_words']:.1f} |" in page
    assert "| query_flops | 0.1 |" in page


def test_the_weights_with_the_least_validation_loss_are_kept(run: Callable[..., Run], pairs: Pairs) -> None:
    done = run(train=pairs(), epochs=4, learning_rate=0.05)
    losses = {entry["step"]: entry["eval_loss"] for entry in done.report.history if "eval_loss" in entry}
    best = done.trainer.state.best_global_step
    assert losses[best] == min(losses.values())


def test_sentence_transformers_and_the_bundle_give_the_same_embeddings(
    run: Callable[..., Run], pairs: Pairs, tmp_path: Path
) -> None:
    library = pytest.importorskip("sentence_transformers", minversion="5.0")
    done = run(train=pairs(("anchor", "positive", "negative")), max_length=16)
    texts = ["my card is lost", "hello", "change the pin " * 9]
    theirs = library.SparseEncoder(str(done.folder), device="cpu")
    assert theirs.max_seq_length == 16
    assert theirs.similarity_fn_name == "dot"
    expected = theirs.encode(texts, convert_to_sparse_tensor=False).numpy()
    with encort.load(export_bundle(done.folder, tmp_path / "b", variants=["fp32"]).folder) as model:
        found = model.embed_sparse(texts)
    for embedding, reference in zip(found, expected, strict=True):
        dense = np.zeros_like(reference)
        dense[embedding.indices] = embedding.weights
        np.testing.assert_allclose(dense, reference, atol=1e-4)
    assert 0 < len(found[0]) < len(expected[0])
    words = theirs.encode([f"my {thing}" for thing in ("card", "pin")], convert_to_sparse_tensor=False)
    assert (words > 0).any()


def test_the_metrics_are_those_of_plain_loops(run: Callable[..., Run], pairs: Pairs) -> None:
    done = run(train=pairs(), epochs=3, learning_rate=1e-3, batch_size=11)
    library = pytest.importorskip("sentence_transformers", minversion="5.0")
    model = library.SparseEncoder(str(done.folder), device="cpu")
    rows = [line.split(",") for line in pairs().read_text().splitlines()[1:]]
    queries, documents = (
        model.encode([row[side] for row in rows], convert_to_sparse_tensor=False).numpy() for side in (0, 1)
    )
    scores = queries @ documents.T  # all rows are one batch of the evaluation
    ranks = np.array([sum(score >= row[own] for score in row) for own, row in enumerate(scores)])
    metrics = done.report.metrics["validation"]
    assert 0 < metrics["accuracy_at_1"] < 1, "too easy or too hard to tell one from another"
    assert metrics["accuracy_at_1"] == pytest.approx((ranks == 1).mean())
    assert metrics["mrr"] == pytest.approx((1 / ranks).mean())
    assert metrics["mean_query_words"] == pytest.approx((queries > 0).sum(axis=1).mean())
    assert metrics["mean_document_words"] == pytest.approx((documents > 0).sum(axis=1).mean())


def test_equal_scores_are_not_counted_as_found() -> None:
    outputs = (np.array([1, 2, 4, 1]), np.array([3, 3, 3, 3]), np.array([5, 5, 5, 6]))
    scores = SparseEmbeddingTask().scores(outputs, None, None, None, None)
    assert scores.metrics["accuracy_at_1"] == 0.5
    assert scores.metrics["mrr"] == pytest.approx((1 + 0.5 + 0.25 + 1) / 4)
    assert scores.metrics["mean_document_words"] == pytest.approx(5.25)


def test_a_stopped_training_ends_with_the_weights_of_a_whole_one(
    run: Callable[..., Run], pairs: Pairs, tmp_path: Path
) -> None:
    class StoppedError(Exception):
        """Ends a training."""

    class Stop(transformers.TrainerCallback):  # type: ignore[misc] # untyped
        def on_step_begin(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
            if state.global_step == 6:
                raise StoppedError

    options: dict[str, Any] = {"train": pairs(), "epochs": 3}
    task = SparseEmbeddingTask(query_flops=0.1, document_flops=0.1)
    whole = run(**options, task=task)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transformers.trainer.DEFAULT_CALLBACKS", [*transformers.trainer.DEFAULT_CALLBACKS, Stop])
        with pytest.raises(StoppedError):
            run(**options, task=task, output=tmp_path / "c")
    with pytest.raises(InputError, match="query_flops"):
        run(**options, output=tmp_path / "c", resume=True)
    resumed = run(**options, task=task, output=tmp_path / "c", resume=True)
    assert resumed.weights == whole.weights


def test_an_encoder_that_predicts_no_words_is_refused(
    run: Callable[..., Run], tiny_encoder: Path, pairs: Pairs
) -> None:
    with pytest.raises(CheckpointError, match="encort train masked-language-modeling"):
        run(train=pairs(), model=tiny_encoder)


def test_negatives_may_be_texts_lists_or_columns(run: Callable[..., Run], tmp_path: Path) -> None:
    table = tmp_path / "a.jsonl"
    rows: list[dict[str, Any]] = [
        {"query": f"my {name}", "document": f"the {name}", "negatives": ["pin", "is"][:number]}
        for number, name in enumerate("abcd" * 3, start=1)
    ]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run(train=table, epochs=1)
    table.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0] | {"negatives": []}]))
    with pytest.raises(DatasetError, match="no negatives: rows 13"):
        run(train=table)
    columns = tmp_path / "a.csv"
    columns.write_text("query,document,first,second\n" + "a,b,c,d\n" * 12)
    run(train=columns, columns={"negatives": "first,second"}, epochs=1)


@pytest.mark.parametrize("weight", [-1.0, float("nan")])
def test_weights_of_penalties_below_0_are_refused(weight: float) -> None:
    with pytest.raises(InputError, match="document_flops must be at least 0"):
        SparseEmbeddingTask(document_flops=weight)
