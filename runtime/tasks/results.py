"""Types of results that users see."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from encort.runtime.common.arrays import FloatArray, Int64Array

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class Classification:
    """The class of one text.

    Attributes:
        label: The most probable label.
        score: Probability of this label.
        scores: Probability of every label, in the order of training. They sum to 1, except in multi-label
            classification, where each label has a probability of its own.
        tokens: Tokens of the text that the model read, special tokens included.
        truncated: Whether tokens were cut off at the limit.
        threshold: The bundle's threshold for `above`: 0.5, or what training chose on validation data.
    """

    label: str
    score: float
    scores: Mapping[str, float]
    tokens: int
    truncated: bool
    threshold: float = 0.5

    def above(self, threshold: float | None = None) -> list[str]:
        """Return the labels with at least this probability: the result of multi-label classification.

        Args:
            threshold: None: the bundle's threshold.
        """
        least = self.threshold if threshold is None else threshold
        return [label for label, score in self.scores.items() if score >= least]


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """A document in the order of `Model.rank`.

    Attributes:
        index: Number of the document in the caller's list, from 0.
        score: Score of the document for the query; the higher, the better.
    """

    index: int
    score: float


@dataclass(frozen=True, eq=False, kw_only=True)
class SparseEmbedding:
    """The sparse embedding of one text: the tokens of the vocabulary that have a weight above 0.

    Attributes:
        indices: Token ids, ascending, `(n,)` int64. `Model.tokens` gives their names.
        weights: Their weights, `(n,)` float32.
        truncated: Whether tokens of the text were cut off at the limit.
    """

    indices: Int64Array
    weights: FloatArray
    truncated: bool

    def __len__(self) -> int:
        """Return the number of weights."""
        return len(self.indices)


@dataclass(frozen=True, eq=False, kw_only=True)
class AllEmbeddings:
    """The embeddings of one text from one run of the encoder.

    Attributes:
        dense: The sentence embedding, `(dimensions,)` float32.
        sparse: The sparse embedding.
        tokens: The vectors of the tokens that are compared, `(tokens, size)` float32.
    """

    dense: FloatArray
    sparse: SparseEmbedding
    tokens: FloatArray


class Matches(list[Item]):
    """Spans of one text, or answers to one question: a list, and how much of the text the model read.

    Attributes:
        tokens: Tokens of the text that the model read, special tokens included.
        truncated: Whether tokens were cut off at the limit.
    """

    def __init__(self, items: Iterable[Item] = (), *, tokens: int = 0, truncated: bool = False) -> None:
        """Make a list of the items."""
        super().__init__(items)
        self.tokens, self.truncated = tokens, truncated


@dataclass(frozen=True, kw_only=True)
class Span:
    """A tagged part of a text.

    Attributes:
        label: Label of the tag, without the prefix of a tagging scheme such as `B-`.
        score: Mean probability of the tags of its words.
        start: Offset of its first character in the given text.
        end: Offset behind its last character.
        text: `text[start:end]`.
    """

    label: str
    score: float
    start: int
    end: int
    text: str


@dataclass(frozen=True, kw_only=True)
class TaggedWord:
    """A given word with its tag.

    Attributes:
        word: The word.
        tag: Its whole tag, such as `B-LOC`; None if the model did not read the word, because the text was cut before it
            or the tokenizer drops it.
        score: Probability of the tag; 0 without a tag.
    """

    word: str
    tag: str | None
    score: float


@dataclass(frozen=True, kw_only=True)
class Word:
    """A word for a mask token.

    Attributes:
        text: Text of the token, which may begin with a space, or be a part of a word such as `##ing`.
        token: Its id.
        score: Its probability among the tokens of the vocabulary.
    """

    text: str
    token: int
    score: float


@dataclass(frozen=True, kw_only=True)
class Masked:
    """A mask token of a text, with the words that fit there.

    Attributes:
        words: The most probable words, the best first.
        start: Offset of the first character of the mask token in the given text; None for inputs of token ids.
        end: Offset behind its last character; None for inputs of token ids.
    """

    words: list[Word]
    start: int | None
    end: int | None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A part of a context that answers a question.

    Attributes:
        text: `context[start:end]`.
        score: Probability that its first token is the start, times the probability that its last token is the end,
            in its window. `Answers.null_score` is on the same scale.
        start: Offset of its first character in the context.
        end: Offset behind its last character.
    """

    text: str
    score: float
    start: int
    end: int


class Answers(Matches[Answer]):
    """Answers to one question, the most probable first. The list is empty if the context does not answer it.

    Attributes:
        null_score: Probability that the context has no answer. It is the product of two probabilities, as the scores
            of the answers are; for a context that is read in windows, it is the smallest one of all windows.
        null_margin: Logarithm of the null score less that of the best answer's score. There is no answer if it is
            larger than `null_threshold`; infinity if nothing of the context could be an answer.
        tokens: Tokens of the pair that the model read, special tokens included.
        truncated: Whether tokens were cut off at the limit.
    """

    def __init__(
        self,
        items: Iterable[Answer] = (),
        *,
        null_score: float = 0.0,
        null_margin: float = 0.0,
        tokens: int = 0,
        truncated: bool = False,
    ) -> None:
        """Make a list of the answers."""
        super().__init__(items, tokens=tokens, truncated=truncated)
        self.null_score, self.null_margin = null_score, null_margin

    @property
    def no_answer(self) -> bool:
        """Whether the context does not answer the question."""
        return not self
