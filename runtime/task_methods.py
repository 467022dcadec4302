"""`TaskMethods`: the methods of `Model` that run texts through the graph, one for each task."""

from collections.abc import Sequence
from typing import Any, Literal, TypedDict, Unpack, overload

import numpy as np
from numpy.typing import NDArray

from encort.runtime.bundle.manifest import Similarity, Task
from encort.runtime.common.aggregation import Aggregation, AggregationName
from encort.runtime.common.arrays import Float16Array, FloatArray, Int8Array, UInt8Array
from encort.runtime.common.errors import InputTypeError
from encort.runtime.engine.tokenizer_pool import TokenizerPool
from encort.runtime.task_runner import TaskRunner
from encort.runtime.tasks.quantization import EmbeddingPrecision
from encort.runtime.tasks.results import (
    AllEmbeddings,
    Answers,
    Classification,
    Masked,
    Matches,
    Ranked,
    Span,
    SparseEmbedding,
    TaggedWord,
)
from encort.runtime.tasks.retrieval import max_sim, sparse_products
from encort.runtime.tasks.similarity import best_first, similarities
from encort.runtime.tasks.specs import Tasks
from encort.runtime.tasks.task_spec import Inputs
from encort.runtime.tasks.zero_shot import TEMPLATE
from encort.runtime.text.prompts import DOCUMENT_NAMES, QUERY_NAMES, Prompt
from encort.runtime.text.token_batch import TokenBatch
from encort.runtime.text.validation import check_query, check_texts
from encort.runtime.text.vocabulary import Vocabulary
from encort.runtime.text.windows import Overflow
from encort.runtime.text_methods import TextMethods


class EmbedOptions(TypedDict, total=False):
    """Options of `TaskMethods.embed`, except for the precision, which decides the type of the result."""

    prompt: str | Prompt | None
    dimensions: int | None
    overflow: Overflow | None
    stride: int | None


class TaskMethods(TextMethods):
    """Results of texts, in the caller's order."""

    def __init__(self, tokenizer: TokenizerPool, vocabulary: Vocabulary, runner: TaskRunner, tasks: Tasks) -> None:
        """Run the tasks of a bundle."""
        super().__init__(tokenizer, vocabulary, tasks.manifest.prompts)
        self._runner, self._tasks = runner, tasks

    @overload
    def embed(
        self, texts: Inputs, *, precision: Literal["float32"] = "float32", **options: Unpack[EmbedOptions]
    ) -> FloatArray: ...

    @overload
    def embed(
        self, texts: Inputs, *, precision: Literal["float16"], **options: Unpack[EmbedOptions]
    ) -> Float16Array: ...

    @overload
    def embed(
        self, texts: Inputs, *, precision: Literal["int8", "binary"], **options: Unpack[EmbedOptions]
    ) -> Int8Array: ...

    @overload
    def embed(
        self, texts: Inputs, *, precision: Literal["uint8", "ubinary"], **options: Unpack[EmbedOptions]
    ) -> UInt8Array: ...

    def embed(
        self,
        texts: Inputs,
        *,
        prompt: str | Prompt | None = None,
        dimensions: int | None = None,
        precision: EmbeddingPrecision = "float32",
        overflow: Overflow | None = None,
        stride: int | None = None,
    ) -> NDArray[Any]:
        """Return sentence embeddings, `(n, dimensions)` float32, pooled and normalized as the manifest says.

        Args:
            texts: See `tokenize`.
            prompt: See `tokenize`. A batch has its prompt already.
            dimensions: Number of leading values of each embedding, for models that were trained for it (Matryoshka);
                None: as many as the bundle says, mostly all. As in sentence-transformers, values are cut after
                normalization, and their length is then below 1: compare them with `similarity`.
            precision: `"float16"` rounds each value. `"int8"` and `"uint8"` give each value one of 256 steps in
                `embedding_ranges`, so that a result does not depend on the other texts. `"binary"` and `"ubinary"` give
                the sign of each value as a bit, in an array `(n, ceil(dimensions / 8))` of int8 or uint8.
            overflow: See `tokenize`. The embedding of several windows is their mean, weighted by their tokens.
            stride: See `tokenize`.

        Raises:
            WrongTaskError: The bundle has no sentence embeddings.
            InputError: See `tokenize`; or an option has no such value.
        """
        spec = self._tasks.embed(prompt=prompt, dimensions=dimensions, precision=precision)
        return self._runner.run(spec, texts, overflow, stride)

    def embed_tokens(
        self,
        texts: Inputs,
        *,
        prompt: str | Prompt | None = None,
        overflow: Overflow | None = None,
        stride: int | None = None,
    ) -> list[FloatArray]:
        """Return the vectors of the tokens of every text, `(tokens, dim)` float32.

        A model of token vectors, such as ColBERT, gives vectors of length 1 of the tokens that it compares. Other
        models give their last hidden states, special tokens included.

        Args:
            texts: See `tokenize`.
            prompt: `"query"` or `"document"` for models that read them differently; None: documents. Other models: see
                `tokenize`, but None is no prompt.
            overflow: See `tokenize`. Queries and documents with markers of their own cannot be read in windows.
            stride: See `tokenize`.

        Raises:
            WrongTaskError: The bundle gives neither token vectors nor hidden states.
            InputError: See `tokenize`.
        """
        return self._runner.run(self._tasks.embed_tokens(prompt=prompt), texts, overflow, stride)

    def embed_sparse(
        self,
        texts: Inputs,
        *,
        prompt: str | Prompt | None = None,
        top_k: int | None = None,
        overflow: Overflow | None = None,
        stride: int | None = None,
    ) -> list[SparseEmbedding]:
        """Return the sparse embedding of every text: weights of its tokens (bge-m3), or of any words (SPLADE).

        Args:
            texts: See `tokenize`.
            prompt: See `tokenize`.
            top_k: Most weights of a text, the largest ones; None: all above 0.
            overflow: See `tokenize`. Of several windows, the largest weight of each token is taken.
            stride: See `tokenize`.

        Raises:
            WrongTaskError: The bundle has no sparse embeddings.
            InputError: See `tokenize`; or `top_k` is below 1.
        """
        return self._runner.run(self._tasks.embed_sparse(prompt=prompt, top_k=top_k), texts, overflow, stride)

    def embed_all(
        self,
        texts: Inputs,
        *,
        prompt: str | Prompt | None = None,
        overflow: Overflow | None = None,
        stride: int | None = None,
    ) -> list[AllEmbeddings]:
        """Return the sentence embedding, the sparse embedding and the token vectors of every text in one run.

        Args:
            texts: See `tokenize`.
            prompt: See `tokenize`.
            overflow: See `tokenize`.
            stride: See `tokenize`.

        Raises:
            WrongTaskError: The bundle lacks one of the three, which bge-m3 has.
            InputError: See `tokenize`.
        """
        return self._runner.run(self._tasks.embed_all(prompt=prompt), texts, overflow, stride)

    def classify(
        self, texts: Inputs, *, head: str | None = None, overflow: Overflow | None = None, stride: int | None = None
    ) -> list[Classification]:
        """Return the class of every text or pair.

        Args:
            texts: See `tokenize`.
            head: Name of the head; None: the first that classifies.
            overflow: See `tokenize`. The logits of several windows are averaged, weighted by their tokens.
            stride: See `tokenize`.

        Raises:
            WrongTaskError: The bundle has no such head.
            InputError: See `tokenize`.
        """
        return self._runner.run(self._tasks.classify(head), texts, overflow, stride)

    def classify_zero_shot(
        self,
        texts: Sequence[str],
        labels: Sequence[str],
        *,
        template: str = TEMPLATE,
        multi_label: bool = False,
        head: str | None = None,
    ) -> list[Classification]:
        """Return which of any labels fits each text, by a model of natural language inference.

        A text is read once with the hypothesis about each label, and long texts are cut. The scores are those of the
        pipeline `zero-shot-classification` of transformers.

        Args:
            texts: The texts.
            labels: The labels to choose from, in words.
            template: The hypothesis; its `{}` is replaced by a label.
            multi_label: Whether several labels may fit: each has a probability of its own. If not, they sum to 1.
            head: Name of the head; None: the first that classifies. Its labels must include entailment.

        Returns:
            One result per text. Its `tokens` are those of the longest pair.

        Raises:
            WrongTaskError: The bundle has no head for natural language inference.
            InputTypeError: The texts or labels are not a list of str.
            InputError: A text has an unpaired surrogate; or the labels or the template make no hypotheses.
        """
        spec = self._tasks.classify_zero_shot(head, labels, template=template, multi_label=multi_label)
        return self._runner.run(spec, texts, None, None)

    def score(
        self, texts: Inputs, *, head: str | None = None, overflow: Overflow | None = None, stride: int | None = None
    ) -> FloatArray:
        """Return one number per text or pair, `(n,)` float32, from a regression head.

        For a cross-encoder, these are the numbers of `CrossEncoder.predict`, with its activation function.

        Raises:
            WrongTaskError: The bundle has no such head.
            InputError: See `tokenize`.
        """
        return self._runner.run(self._tasks.score(head), texts, overflow, stride)

    def logits(
        self, texts: Inputs, *, head: str | None = None, overflow: Overflow | None = None, stride: int | None = None
    ) -> FloatArray:
        """Return the logits of every text or pair, `(n, labels)` float32, from a head that classifies or scores.

        Args:
            texts: See `tokenize`.
            head: Name of the head; None: the first of these heads.
            overflow: See `tokenize`. The logits of several windows are averaged, weighted by their tokens.
            stride: See `tokenize`.

        Raises:
            WrongTaskError: The bundle has no such head.
            InputError: See `tokenize`.
        """
        return self._runner.run(self._tasks.logits(head), texts, overflow, stride)

    def tag(
        self,
        texts: Inputs,
        *,
        aggregation: AggregationName | Aggregation | None = None,
        head: str | None = None,
        overflow: Overflow | None = None,
        stride: int | None = None,
    ) -> list[Matches[Span]]:
        """Return the tagged spans of every text in reading order, with character offsets into the given text.

        Args:
            texts: See `tokenize`.
            aggregation: How spans are made of the tags of tokens; see `Aggregation`. None: as the head was made for.
            head: Name of the head; None: the first that tags tokens.
            overflow: See `tokenize`.
            stride: See `tokenize`.

        Raises:
            WrongTaskError: The bundle has no such head.
            InputTypeError: An input is a pair.
            InputError: See `tokenize`; or there is no such aggregation.
        """
        return self._runner.run(self._tasks.tag(head, aggregation=aggregation), texts, overflow, stride)

    def tag_words(
        self,
        words: Sequence[Sequence[str]] | TokenBatch,
        *,
        aggregation: AggregationName | Aggregation | None = None,
        head: str | None = None,
        overflow: Overflow | None = None,
        stride: int | None = None,
    ) -> list[Matches[TaggedWord]]:
        """Return one tag for each word of every text, for texts that are lists of words.

        Args:
            words: Words of each text, or a batch of `JoinedWords`. They are joined as in training: words with a space
                between two of them, characters as they are. For a head that was trained elsewhere, each list is judged
                by what it holds: white space, or single letters without case, are characters.
            aggregation: Which scores of a word's tokens decide; see `Aggregation`. None: as the head was made for.
            head: Name of the head; None: the first that tags tokens.
            overflow: See `tokenize`. Words that are cut off have no tag.
            stride: See `tokenize`.

        Raises:
            WrongTaskError: The bundle has no such head.
            InputTypeError: An input is not a list of str.
            InputError: See `tokenize`; or there is no such aggregation.
        """
        spec = self._tasks.tag_words(head, aggregation=aggregation)
        if isinstance(words, TokenBatch):
            return self._runner.run(spec, words, overflow, stride)
        return self._runner.run(spec, [self._tasks.join_words(head, text) for text in words], overflow, stride)

    def answer(
        self,
        questions: Inputs,
        *,
        n_best: int = 1,
        null_threshold: float | None = None,
        head: str | None = None,
        overflow: Overflow | None = None,
        stride: int | None = None,
    ) -> list[Answers]:
        """Return answers to questions from their contexts, the most probable first; none where the context has none.

        Args:
            questions: Pairs of question and context.
            n_best: Most answers per question.
            null_threshold: A question has no answer (`Answers.no_answer`) if the logarithm of its null score is larger
                than that of the best answer's score by more than this. None: the threshold of the bundle, which
                training chose on validation data; 0 if there is none. `math.inf` always answers.
            head: Name of the head; None: the first that answers questions.
            overflow: See `tokenize`; None reads long contexts in windows.
            stride: See `tokenize`.

        Raises:
            WrongTaskError: The bundle has no such head.
            InputTypeError: An input is not a pair, or an option is not a number.
            InputError: See `tokenize`; or `n_best` is below 1, or `null_threshold` is NaN.
        """
        spec = self._tasks.answer(head, n_best=n_best, null_threshold=null_threshold)
        return self._runner.run(spec, questions, overflow, stride)

    def fill(
        self,
        texts: Inputs,
        *,
        top_k: int = 5,
        head: str | None = None,
        overflow: Overflow | None = None,
        stride: int | None = None,
    ) -> list[Matches[Masked]]:
        """Return the words that fit the mask tokens of every text, such as `[MASK]`, in reading order.

        The scores are those of the pipeline `fill-mask` of transformers.

        >>> model.fill(["Paris is the [MASK] of France."], top_k=1)[0][0].words  # doctest: +SKIP
        [Word(text='capital', token=3007, score=0.997)]

        Args:
            texts: See `tokenize`. Each has at least one mask token.
            top_k: Most words for each mask token.
            head: Name of the head; None: the first that fills masks.
            overflow: See `tokenize`. A mask token that is cut off has no words.
            stride: See `tokenize`.

        Raises:
            WrongTaskError: The bundle has no such head.
            InputError: See `tokenize`; or a text has no mask token, or `top_k` is below 1.
        """
        return self._runner.run(self._tasks.fill(head, top_k=top_k), texts, overflow, stride)

    def rank(self, query: str, documents: Sequence[str], *, top_k: int | None = None) -> list[Ranked]:
        """Return documents in the order of their scores for a query, the best first.

        A bundle with a regression head, such as a cross-encoder, scores each pair of query and document: see `score`.
        A bundle of token vectors alone, such as ColBERT, sums for each token of the query the largest product
        with a token of the document (MaxSim). A bundle of sparse embeddings alone, such as SPLADE, takes their dot
        product. Other bundles compare embeddings with `similarity`. The query gets the
        prompt named `query`, and documents get `document`, `passage` or `corpus`, if the bundle has them.

        Args:
            query: The query.
            documents: The documents. Documents with equal scores keep their order.
            top_k: Most documents to return; None: all.

        Raises:
            WrongTaskError: The bundle has neither a regression head nor embeddings to compare.
            InputTypeError: The query is not a str, or the documents are not a list of str.
            InputError: See `tokenize`; or `top_k` is below 1.
        """
        check_query(query)
        check_texts(documents)
        if not all(isinstance(text, str) for text in documents):
            raise InputTypeError("rank compares one query with documents: give one str, and a list of str")
        if any(head.task is Task.TEXT_REGRESSION for head in self._tasks.manifest.heads):
            scores = self.score([(query, document) for document in documents])
        else:
            scores = self._compare(query, documents)
        return best_first(scores, top_k=top_k)

    def _compare(self, query: str, documents: Sequence[str]) -> FloatArray:
        """Return the score of each document from the embeddings of query and documents, `(n,)` float32."""
        manifest = self._tasks.manifest
        of_query, of_documents = (manifest.prompts.choose(names) for names in (QUERY_NAMES, DOCUMENT_NAMES))
        if manifest.embedding is None and manifest.late_interaction is not None:
            (vectors,) = self.embed_tokens([query], prompt=of_query)
            return max_sim(vectors, self.embed_tokens(documents, prompt=of_documents))
        if manifest.embedding is None and manifest.sparse is not None:
            (weights,) = self.embed_sparse([query], prompt=of_query)
            return sparse_products(weights, self.embed_sparse(documents, prompt=of_documents))
        embedding = self.embed([query], prompt=of_query)
        (scores,) = self.similarity(embedding, self.embed(documents, prompt=of_documents))
        return np.asarray(scores, np.float32)

    def similarity(self, first: NDArray[Any], second: NDArray[Any]) -> FloatArray:
        """Return the similarity of every embedding to every other one, `(n, m)` float32.

        The function is the bundle's: cosine, dot product, or the negative Euclidean or Manhattan distance.

        Args:
            first: `(n, dimensions)` float32, or int8 or uint8 of `embed` with that precision. Embeddings of bits
                (`"binary"`, `"ubinary"`) cannot be compared here: use their Hamming distance.
            second: `(m, dimensions)`, of the same precision.

        Raises:
            InputError: The embeddings are not two tables of the same width.
        """
        embedding = self._tasks.manifest.embedding
        return similarities(first, second, Similarity.COSINE if embedding is None else embedding.similarity)

    def predict(
        self, texts: Inputs, *, overflow: Overflow | None = None, stride: int | None = None
    ) -> FloatArray | list[Classification] | list[Matches[Span]] | list[Answers] | list[Matches[Masked]]:
        """Return what the bundle is for: the result of `classify` and others with its first head, or of `embed`."""
        results: FloatArray | list[Classification] | list[Matches[Span]] | list[Answers] | list[Matches[Masked]]
        results = self._runner.run(self._tasks.predict(), texts, overflow, stride)
        return results
