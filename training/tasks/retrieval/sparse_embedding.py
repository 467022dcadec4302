"""SPLADE: sparse embeddings of words, from the logits of a masked language model (Formal et al. 2021)."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from encort.runtime.common.errors import CheckpointError, InputError
from encort.training.data.examples import Examples
from encort.training.pretrained import Pretrained
from encort.training.tasks.retrieval.pairs import RankingNetwork, RetrievalTask
from encort.training.tied_weights import WordNetwork

QUERY_FLOPS, DOCUMENT_FLOPS = 5e-5, 3e-5
"""Weights of the penalties for queries and documents, those of the examples of sentence-transformers."""
WARMUP = 1 / 3
"""Share of the steps in which these weights rise, as in sentence-transformers."""
_WORD_MODELS = ("ForMaskedLM", "ForPreTraining")
"""Ends of the names of architectures that predict words."""


class SparseEmbeddingTask(RetrievalTask):
    """Give each word of the vocabulary a weight: the maximum over the tokens of `log(1 + relu(logit))`.

    The score of a document is the dot product with the query. A penalty for words that many texts of a batch have
    (FLOPS, Paria et al. 2020) makes most weights 0.

    Attributes:
        query_flops: Weight of the penalty for queries.
        document_flops: Weight of the penalty for documents.
    """

    name = "sparse-embedding"

    def __init__(self, *, query_flops: float = QUERY_FLOPS, document_flops: float = DOCUMENT_FLOPS) -> None:
        self.query_flops, self.document_flops = query_flops, document_flops
        problems = [f"{name} must be at least 0, got {value}" for name, value in self.options.items() if not value >= 0]
        if problems:
            raise InputError("; ".join(problems))

    @property
    def options(self) -> dict[str, Any]:
        """The weights of the penalties; see `TrainingTask`."""
        return {"query_flops": self.query_flops, "document_flops": self.document_flops}

    @property
    def outputs(self) -> Sequence[str]:
        """The rank, and the numbers of words that are not 0; see `RetrievalTask`."""
        return ["rank", "query_words", "document_words"]

    def check_model(self, pretrained: Pretrained) -> None:
        """Refuse a checkpoint that does not predict words; see `TrainingTask`."""
        super().check_model(pretrained)
        names = pretrained.config.architectures or [""]
        if not pretrained.from_scratch and not names[0].endswith(_WORD_MODELS):
            raise CheckpointError(
                f"{pretrained.name} is no masked language model, so that no word would have a sensible weight: start "
                "from one, or make one of it with encort train masked-language-modeling"
            )

    def network(self, pretrained: Pretrained, examples: Examples) -> Any:
        """Return the masked language model with the loss on its sparse embeddings."""
        model = pretrained.network(transformers.AutoModelForMaskedLM)
        return SpladeNetwork(model, query_flops=self.query_flops, document_flops=self.document_flops)

    def callbacks(self, network: "SpladeNetwork") -> list[transformers.TrainerCallback]:
        """Return what lets the penalties rise; see `TrainingTask`."""
        return [_FlopsWarmup(network)]

    def save(self, network: "SpladeNetwork", folder: Path) -> None:
        """Write the model, with the files that make it a `SparseEncoder` of sentence-transformers."""
        network.model.save_pretrained(folder)
        pooling = {"pooling_strategy": "max", "activation_function": "relu"}
        settings = {"model_type": "SparseEncoder", "similarity_fn_name": "dot"}
        files = {
            "modules.json": _MODULES,
            "1_SpladePooling/config.json": pooling | {"embedding_dimension": network.config.vocab_size},
            "config_sentence_transformers.json": settings,
        }
        for name, content in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


class SpladeNetwork(WordNetwork, RankingNetwork):
    """A masked language model with a ranking loss and penalties on its sparse embeddings.

    Attributes:
        warmth: Factor of the penalties in training, from 0 to 1. Evaluations have the whole penalties.
    """

    def __init__(self, model: Any, *, query_flops: float, document_flops: float) -> None:
        super().__init__(model)
        self.warmth = 1.0
        self._query_flops, self._document_flops = query_flops, document_flops

    def vectors(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the weight of every word of the vocabulary, `(texts, vocabulary)` float32."""
        logits = self.model(**inputs).logits
        # Padding counts as 0, which is also the smallest weight. The logarithm of few values needs less memory.
        largest = logits.masked_fill(inputs["attention_mask"][:, :, None] == 0, 0.0).amax(dim=1)
        return torch.log1p(torch.relu(largest.float()))

    def score(self, queries: torch.Tensor, documents: torch.Tensor) -> torch.Tensor:
        """Return the dot products."""
        return queries @ documents.T

    def measure(self, queries: torch.Tensor, documents: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the numbers of words that are not 0, and the penalty; see `RankingNetwork`."""
        penalty = self._query_flops * flops(queries) + self._document_flops * flops(documents)
        return {
            "query_words": (queries > 0).sum(dim=1),
            "document_words": (documents[: len(queries)] > 0).sum(dim=1),
            "penalty": (self.warmth if self.training else 1.0) * penalty,
        }


def flops(embeddings: torch.Tensor) -> torch.Tensor:
    """Return the sum over the words of the squared mean weight, a scalar.

    Args:
        embeddings: `(texts, vocabulary)`.
    """
    return embeddings.mean(dim=0).square().sum()


class _FlopsWarmup(transformers.TrainerCallback):  # type: ignore[misc] # untyped
    """Lets the penalties rise from 0, with the square of the step, so that words are not all lost at the start."""

    def __init__(self, network: SpladeNetwork) -> None:
        self._network = network

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._network.warmth = min(1.0, state.global_step / (WARMUP * state.max_steps)) ** 2


_MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.sparse_encoder.models.MLMTransformer"},
    {
        "idx": 1,
        "name": "1",
        "path": "1_SpladePooling",
        "type": "sentence_transformers.sparse_encoder.models.SpladePooling",
    },
]
"""Parts of a model in `modules.json` of sentence-transformers."""
