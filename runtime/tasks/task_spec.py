"""`TaskSpec`: what a task needs of the graph, and the checks of its inputs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from numpy.typing import NDArray

from encort.runtime.common.arrays import FloatArray
from encort.runtime.common.errors import InputError, InputTypeError
from encort.runtime.text.joined_words import JoinedWords
from encort.runtime.text.token_batch import Text, TokenBatch, TokenIds
from encort.runtime.text.token_prompt import TokenPrompt
from encort.runtime.text.validation import check_texts
from encort.runtime.text.windows import Overflow, merge_windows

Inputs = Sequence[Text] | Sequence[TokenIds] | TokenBatch
"""Inputs of every task: texts, pairs of texts, token ids, or a batch that `tokenize` returned."""

Results = TypeVar("Results", bound=Sequence[Any] | NDArray[Any])


def check_nothing(_: TokenBatch) -> None:
    """Accept every input."""


def same_rows(batch: TokenBatch) -> TokenBatch:
    """Run the rows of a batch as they are."""
    return batch


@dataclass(frozen=True)
class TaskSpec(Generic[Results]):
    """One task with its options.

    Attributes:
        outputs: Names of the outputs of the graph that the task needs.
        postprocess: Makes one result per text of these outputs, in the order of the texts.
        tokenwise: Whether the outputs have one row per token.
        normalize: Whether the outputs have length 1.
        accepts: Refuses inputs that the task cannot use; see `check`.
        prompt: Text that is put before every text, or tokens that are added to it.
        any_prompt: Whether the task takes batches that were tokenized with any other prompt.
        overflow: Policy for inputs over the limit, if the caller gives none.
        merge: Whether the windows of a text are merged before `postprocess`, which else merges them itself.
        rows: Makes the batch that is run from the tokenized one. The outputs of its rows go to `postprocess`.
        hypotheses: Texts that each text is paired with, so that it has one row for each; empty: texts stay as they are.
    """

    outputs: Sequence[str]
    postprocess: Callable[[TokenBatch, list[FloatArray]], Results]
    tokenwise: bool = False
    normalize: bool = False
    accepts: Callable[[TokenBatch], None] = check_nothing
    prompt: str | TokenPrompt = ""
    any_prompt: bool = False
    overflow: Overflow = "truncate"
    merge: bool = True
    rows: Callable[[TokenBatch], TokenBatch] = same_rows
    hypotheses: Sequence[str] = ()

    @property
    def rows_per_text(self) -> int:
        """Number of inputs of the graph that one text makes."""
        return len(self.hypotheses) or 1

    def inputs(self, texts: Inputs) -> Inputs:
        """Return the inputs of the graph that texts make, text after text.

        Raises:
            InputTypeError: A text that is to be paired with hypotheses is not one str.
        """
        if not self.hypotheses:
            return texts
        check_texts(texts)
        singles = [text for text in cast("Sequence[Text]", texts) if isinstance(text, str)]
        if len(singles) < len(texts):
            raise InputTypeError("texts are paired with the labels' hypotheses: give single texts, not pairs")
        return [(text, hypothesis) for text in singles for hypothesis in self.hypotheses]

    def check(self, batch: TokenBatch) -> None:
        """Refuse inputs that the task cannot use.

        Raises:
            InputError: The batch was tokenized with another prompt, or `accepts` refuses it.
        """
        if not self.any_prompt and batch.prompt != self.prompt:
            raise InputError(
                f"the batch was tokenized with the prompt {batch.prompt!r}, not {self.prompt!r}; "
                + ("give the prompt to tokenize" if self.prompt else 'give prompt="" to tokenize')
            )
        self.accepts(batch)

    def finish(self, batch: TokenBatch, arrays: Sequence[FloatArray]) -> Results:
        """Return one result per text.

        Args:
            batch: The tokenized batch.
            arrays: `outputs` of its `rows`, as `Engine.run` returns them.
        """
        if not self.merge:
            return self.postprocess(batch, list(arrays))
        whole, merged = merge_windows(batch, arrays, tokenwise=self.tokenwise, normalize=self.normalize)
        return self.postprocess(whole, merged)


def check_singles(batch: TokenBatch) -> None:
    """Refuse pairs."""
    _check_offsets(batch)
    if any(isinstance(text, tuple) for text in batch.texts):
        raise InputTypeError("pairs cannot be tagged; give single texts")


def check_words(batch: TokenBatch) -> None:
    """Refuse texts that were not given as lists of words."""
    _check_offsets(batch)
    if not all(isinstance(text, JoinedWords) for text in batch.texts):
        raise InputTypeError("the batch lacks the words of its texts; give the words of each text, a list of str")


def check_pairs(batch: TokenBatch) -> None:
    """Refuse single texts."""
    _check_offsets(batch)
    if any(isinstance(text, str) for text in batch.texts):
        raise InputTypeError(
            "each input must be a pair of question and context: (question, context) in Python, two columns in a file"
        )


def _check_offsets(batch: TokenBatch) -> None:
    """Refuse a batch that lacks the offsets of its tokens."""
    if batch.offsets is None or len(batch.texts) != len(batch.truncated_texts):
        raise InputTypeError("the batch lacks the offsets of its tokens; tokenize texts with this model")
