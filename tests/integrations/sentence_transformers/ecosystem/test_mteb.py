"""MTEB runs on a bundle unchanged, and measures what it measures with sentence-transformers."""

import random
from typing import Any, ClassVar

import pytest

pytest.importorskip("mteb")

import mteb
from datasets import Dataset, DatasetDict
from mteb.abstasks import AbsTaskClassification, AbsTaskRetrieval, AbsTaskSTS

from tests.builders import WORDS
from tests.integrations.sentence_transformers.conftest import Both


def texts(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(2, 12))) for _ in range(count)]


def metadata(name: str, kind: str, main_score: str) -> Any:
    return mteb.TaskMetadata(
        name=name,
        description="A small task, made in code.",
        type=kind,
        main_score=main_score,
        dataset={"path": "local/none", "revision": "1"},
        eval_langs=["eng-Latn"],
    )


class Sts(AbsTaskSTS):  # type: ignore[misc]
    metadata = metadata("Sts", "STS", "cosine_spearman")
    min_score: ClassVar[int] = 0
    max_score: ClassVar[int] = 5

    def load_data(self, **_: Any) -> None:
        scores = [random.Random(number).uniform(0, 5) for number in range(60)]
        columns = {"sentence1": texts(60, 1), "sentence2": texts(60, 2), "score": scores}
        self.dataset = DatasetDict({"test": Dataset.from_dict(columns)})
        self.data_loaded = True


class Classification(AbsTaskClassification):  # type: ignore[misc]
    metadata = metadata("Classification", "Classification", "accuracy")

    def load_data(self, **_: Any) -> None:
        parts = {"train": texts(90, 3), "test": texts(60, 4)}
        self.dataset = DatasetDict(
            {
                name: Dataset.from_dict({"text": part, "label": [len(text) % 3 for text in part]})
                for name, part in parts.items()
            }
        )
        self.data_loaded = True


class Retrieval(AbsTaskRetrieval):  # type: ignore[misc]
    metadata = metadata("Retrieval", "Retrieval", "ndcg_at_10")
    top_ranked: ClassVar[Any] = None

    def load_data(self, **_: Any) -> None:
        split = {
            "corpus": Dataset.from_dict({"id": [f"d{n}" for n in range(40)], "text": texts(40, 5), "title": [""] * 40}),
            "queries": Dataset.from_dict({"id": [f"q{n}" for n in range(12)], "text": texts(12, 6)}),
            "relevant_docs": {f"q{n}": {f"d{n}": 1, f"d{39 - n}": 1} for n in range(12)},
            "top_ranked": self.top_ranked,
        }
        self.dataset = {"default": {"test": split}}
        self.data_loaded = True


class Reranking(Retrieval):
    metadata = metadata("Reranking", "Reranking", "map_at_1000")
    top_ranked: ClassVar[Any] = {f"q{n}": [f"d{m}" for m in range(40)] for n in range(12)}


def main_score(model: Any, task: type) -> float:
    result = mteb.evaluate(model, task(), cache=None, co2_tracker=False)
    return float(result.task_results[0].get_score())


@pytest.mark.parametrize("task", [Sts, Classification, Retrieval, Reranking])
def test_an_encoder(both: Both, task: type) -> None:
    expected = main_score(both.theirs, task)
    assert main_score(both.ours, task) == pytest.approx(expected, abs=5e-3)  # a decision on the border
    assert -1 < expected < 1


def test_a_cross_encoder(both_cross: Both) -> None:
    if both_cross.theirs.num_labels > 1:
        pytest.skip("MTEB reranks with one score per pair")
    assert main_score(both_cross.ours, Reranking) == pytest.approx(main_score(both_cross.theirs, Reranking), abs=1e-3)
