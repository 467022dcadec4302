"""The tasks: which outputs of the graph each needs, and how results are made of them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encort.runtime.bundle.manifest import (
    SENTENCE_EMBEDDING,
    Activation,
    HeadInfo,
    Manifest,
    Task,
    Variant,
)
from encort.runtime.common.aggregation import Aggregation, AggregationName
from encort.runtime.common.arrays import FloatArray
from encort.runtime.common.checks import check_number, check_whole, choice
from encort.runtime.common.errors import InputError, WrongTaskError
from encort.runtime.tasks.answers import answers
from encort.runtime.tasks.classification import ACTIVATIONS, classifications, sigmoid, softmax
from encort.runtime.tasks.fill_mask import fill_mask_spec
from encort.runtime.tasks.quantization import RANGED, EmbeddingPrecision, check_precision, quantize_embeddings
from encort.runtime.tasks.results import (
    AllEmbeddings,
    Answers,
    Classification,
    Masked,
    Matches,
    Span,
    SparseEmbedding,
    TaggedWord,
)
from encort.runtime.tasks.retrieval_specs import all_embeddings_spec, sparse_spec, token_embeddings_spec
from encort.runtime.tasks.spans import spans
from encort.runtime.tasks.task_spec import TaskSpec, check_pairs, check_singles, check_words
from encort.runtime.tasks.word_tags import word_tags
from encort.runtime.tasks.zero_shot import TEMPLATE, entailment_columns, hypotheses, zero_shot
from encort.runtime.text.joined_words import JoinedWords
from encort.runtime.text.prompts import Prompt
from encort.runtime.text.vocabulary import Vocabulary
from encort.runtime.text.words import SubwordMarks

CLASSIFIERS = tuple(task for task in Task if task.is_classification)
"""Tasks of heads that `classify` can use."""


@dataclass(frozen=True)
class Tasks:
    """The tasks of one variant of a bundle.

    Attributes:
        folder: Folder of the bundle, for messages.
        manifest: Manifest of the bundle.
        variant: The variant that is served.
        subword_marks: Signs by which some aggregations find words.
        vocabulary: Tokens of the vocabulary and their ids.
        embedding_ranges: Returns the range of each dimension of an embedding, `(2, dim)` float32.
    """

    folder: Path
    manifest: Manifest
    variant: Variant
    subword_marks: SubwordMarks
    vocabulary: Vocabulary
    embedding_ranges: Callable[[], FloatArray]

    def head(self, name: str | None, *tasks: Task) -> HeadInfo:
        """Return the head with this name; without a name the first head, for one of the tasks if any are given.

        Raises:
            WrongTaskError: The bundle has no such head.
        """
        for head in self.manifest.heads:
            if name in (None, head.name) and (not tasks or head.task in tasks):
                return head
        have = ", ".join(f"{head.name} ({head.task})" for head in self.manifest.heads) or "none"
        wanted = "head" if name is None else f"head {name!r}"
        purpose = f" for {' or '.join(tasks)}" if tasks else ""
        hint = "; export a masked language model with --task fill-mask" if tasks == (Task.FILL_MASK,) else ""
        raise WrongTaskError(f"{self.folder} has no {wanted}{purpose}; its heads: {have}{hint}")

    def embedding_output(self, output: str) -> str:
        """Return the name of an output, if the graph has it.

        Raises:
            WrongTaskError: The graph has no such output.
        """
        if output not in self.variant.outputs:
            raise WrongTaskError(
                f"variant {self.variant.name} of {self.folder} gives no {output}; "
                f"it gives: {', '.join(self.variant.outputs)}"
            )
        return output

    def dimensions(self, wanted: int | None = None) -> int:
        """Return the number of values that callers get of an embedding.

        Args:
            wanted: Number of leading values; None: as many as the bundle says.

        Raises:
            WrongTaskError: The bundle has no sentence embeddings.
            InputTypeError: The number is not a whole number.
            InputError: The number is below 1 or above the size of an embedding.
        """
        size = int(self.variant.outputs[self.embedding_output(SENTENCE_EMBEDDING)][-1])
        if wanted is not None:
            return check_whole("dimensions", wanted, least=1, most=size)
        embedding = self.manifest.embedding
        return size if embedding is None or embedding.truncate_dim is None else embedding.truncate_dim

    def embed(
        self,
        *,
        prompt: str | Prompt | None = None,
        dimensions: int | None = None,
        precision: EmbeddingPrecision = "float32",
    ) -> TaskSpec[NDArray[Any]]:
        """Return the spec of `Model.embed`."""
        embedding, size = self.manifest.embedding, self.dimensions(dimensions)
        check_precision(precision)
        ranges = self.embedding_ranges()[:, :size] if precision in RANGED else None
        text = self.manifest.prompts.resolve(prompt)
        return TaskSpec(
            outputs=[self.embedding_output(SENTENCE_EMBEDDING)],
            postprocess=lambda _, arrays: quantize_embeddings(
                np.ascontiguousarray(arrays[0][:, :size]), precision, ranges
            ),
            normalize=embedding is not None and embedding.normalize,
            prompt=text,
            any_prompt=prompt is None,
        )

    def embed_tokens(self, *, prompt: str | Prompt | None = None) -> TaskSpec[list[FloatArray]]:
        """Return the spec of `Model.embed_tokens`."""
        return token_embeddings_spec(self.manifest, self.variant, prompt)

    def embed_sparse(
        self, *, prompt: str | Prompt | None = None, top_k: int | None = None
    ) -> TaskSpec[list[SparseEmbedding]]:
        """Return the spec of `Model.embed_sparse`."""
        return sparse_spec(self.manifest, self.variant, prompt, top_k)

    def embed_all(self, *, prompt: str | Prompt | None = None) -> TaskSpec[list[AllEmbeddings]]:
        """Return the spec of `Model.embed_all`."""
        return all_embeddings_spec(self.manifest, self.variant, prompt)

    def classify(self, head: str | None) -> TaskSpec[list[Classification]]:
        """Return the spec of `Model.classify`."""
        chosen = self.head(head, *CLASSIFIERS)
        probabilities = sigmoid if chosen.task is Task.MULTI_LABEL_CLASSIFICATION else softmax
        return TaskSpec(
            outputs=chosen.outputs,
            postprocess=lambda batch, arrays: classifications(
                arrays[0], chosen.labels, batch, probabilities=probabilities, threshold=chosen.threshold
            ),
        )

    def score(self, head: str | None) -> TaskSpec[FloatArray]:
        """Return the spec of `Model.score`."""
        chosen = self.head(head, Task.TEXT_REGRESSION)
        activate = ACTIVATIONS[chosen.activation or Activation.IDENTITY]
        return TaskSpec(outputs=chosen.outputs, postprocess=lambda _, arrays: activate(arrays[0][:, 0]))

    def logits(self, head: str | None) -> TaskSpec[FloatArray]:
        """Return the spec of `Model.logits`."""
        chosen = self.head(head, Task.TEXT_REGRESSION, *CLASSIFIERS)
        return TaskSpec(outputs=chosen.outputs, postprocess=lambda _, arrays: arrays[0])

    def classify_zero_shot(
        self, head: str | None, labels: Sequence[str], *, template: str = TEMPLATE, multi_label: bool = False
    ) -> TaskSpec[list[Classification]]:
        """Return the spec of `Model.classify_zero_shot`."""
        chosen = self.head(head, Task.TEXT_CLASSIFICATION)
        columns, names = entailment_columns(chosen), list(labels)
        return TaskSpec(
            outputs=chosen.outputs,
            postprocess=lambda batch, arrays: zero_shot(arrays[0], columns, names, batch, multi_label=multi_label),
            hypotheses=hypotheses(labels, template),
        )

    def tag(
        self, head: str | None, *, aggregation: AggregationName | Aggregation | None = None
    ) -> TaskSpec[list[Matches[Span]]]:
        """Return the spec of `Model.tag`."""
        chosen = self.head(head, Task.TOKEN_CLASSIFICATION)
        way = chosen.aggregation if aggregation is None else choice(Aggregation, "aggregation", aggregation)
        return TaskSpec(
            outputs=chosen.outputs,
            postprocess=lambda batch, arrays: spans(
                arrays[0], chosen.labels, batch, aggregation=way, marks=self.subword_marks
            ),
            tokenwise=True,
            accepts=check_singles,
        )

    def tag_words(
        self, head: str | None, *, aggregation: AggregationName | Aggregation | None = None
    ) -> TaskSpec[list[Matches[TaggedWord]]]:
        """Return the spec of `Model.tag_words`."""
        chosen = self.head(head, Task.TOKEN_CLASSIFICATION)
        way = chosen.aggregation if aggregation is None else choice(Aggregation, "aggregation", aggregation)
        return TaskSpec(
            outputs=chosen.outputs,
            postprocess=lambda batch, arrays: word_tags(arrays[0], chosen.labels, batch, aggregation=way),
            tokenwise=True,
            accepts=check_words,
        )

    def join_words(self, head: str | None, words: Sequence[str]) -> JoinedWords:
        """Return the text of some words, joined as the texts were that the head was trained on.

        Raises:
            InputTypeError: It is not a list of str.
        """
        return JoinedWords.of(words, self.head(head, Task.TOKEN_CLASSIFICATION).tokens)

    def answer(
        self, head: str | None, *, n_best: int = 1, null_threshold: float | None = None
    ) -> TaskSpec[list[Answers]]:
        """Return the spec of `Model.answer`."""
        chosen = self.head(head, Task.QUESTION_ANSWERING)
        check_whole("n_best", n_best, least=1)
        threshold = chosen.null_threshold if null_threshold is None else null_threshold
        check_number("null_threshold", threshold)
        if math.isnan(threshold):
            raise InputError("null_threshold is NaN; give a number, or infinity for an answer in every case")
        return TaskSpec(
            outputs=chosen.outputs,
            postprocess=lambda batch, arrays: answers(
                arrays[0], arrays[1], batch, n_best=n_best, null_threshold=threshold
            ),
            accepts=check_pairs,
            overflow="window",
            merge=False,
        )

    def fill(self, head: str | None, *, top_k: int = 5) -> TaskSpec[list[Matches[Masked]]]:
        """Return the spec of `Model.fill`."""
        return fill_mask_spec(self.head(head, Task.FILL_MASK), self.variant, self.vocabulary, top_k=top_k)

    def predict(self) -> TaskSpec[Any]:
        """Return the spec for the first head of the bundle; for embeddings if it has no head."""
        task = self.manifest.task
        if task in CLASSIFIERS:
            return self.classify(None)
        if task is Task.TEXT_REGRESSION:
            return self.score(None)
        if task is Task.TOKEN_CLASSIFICATION:
            return self.tag(None)
        if task is Task.QUESTION_ANSWERING:
            return self.answer(None)
        if task is Task.FILL_MASK:
            return self.fill(None)
        return self.embed()
