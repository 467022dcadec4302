"""`TextMethods`: the methods of `Model` that work without the graph, from texts to token ids and back."""

from collections.abc import Iterable, Iterator, Sequence

from encort.runtime.engine.tokenizer_pool import CHUNK, TokenizerPool
from encort.runtime.text.prompts import Prompt, Prompts
from encort.runtime.text.token_batch import Text, TokenBatch, TokenIds
from encort.runtime.text.vocabulary import Vocabulary
from encort.runtime.text.windows import Overflow


class TextMethods:
    """Token ids of texts, and texts of token ids."""

    def __init__(self, tokenizer: TokenizerPool, vocabulary: Vocabulary, prompts: Prompts) -> None:
        """Use a tokenizer, its vocabulary, and the prompts of a bundle."""
        self._tokenizer, self._vocabulary, self._prompts = tokenizer, vocabulary, prompts

    def tokenize(
        self,
        texts: Sequence[Text] | Sequence[TokenIds],
        *,
        overflow: Overflow = "truncate",
        stride: int | None = None,
        first: int = 0,
        prompt: str | Prompt | None = None,
        return_offsets: bool = False,
    ) -> TokenBatch:
        """Return the token ids of texts or pairs. Tasks take the result in place of texts; heads, one without a prompt.

        The batch says how many tokens of each text were read (`tokens_per_text`) and which texts were cut
        (`truncated_texts`).

        Args:
            texts: Each a str, or a tuple of two str for a pair. Or token ids for all of them: a list or an array for
                each single text, special tokens included; their token types are 0.
            overflow: `"truncate"` cuts inputs at the limit, `"truncate_left"` cuts their beginnings, `"error"` refuses
                them, `"window"` reads them whole in overlapping windows.
            stride: Tokens that neighbouring windows share; None: a quarter of a window, at most 128.
            first: Number of the first text, for error messages about a part of many.
            prompt: Name of the bundle's prompt that is put before each text, or before the first text of each pair; a
                `Prompt` with another text; `""` for none. None: the bundle's default prompt, which `embed` uses and
                heads do not: they refuse a batch with a prompt, so give them one with `""`. Token ids cannot have a
                prompt.
            return_offsets: Whether the batch tells the offsets of its tokens in their texts, prompt included. Bundles
                that tag or answer always do.

        Raises:
            InputTypeError: Not a list of str or pairs of str.
            InputError: A text is not Unicode, an id is not in the vocabulary, or there is no such prompt.
            InputTooLongError: A text is longer than the limit, with `overflow="error"`.
        """
        text = self._prompts.resolve(prompt)
        return self._tokenizer(
            texts, overflow=overflow, stride=stride, first=first, prompt=text, return_offsets=return_offsets
        )

    def tokenize_stream(
        self,
        texts: Iterable[Text],
        *,
        overflow: Overflow = "truncate",
        stride: int | None = None,
        chunk: int = CHUNK,
        prompt: str | Prompt | None = None,
    ) -> Iterator[TokenBatch]:
        """Yield token batches of any number of texts. The next batch is tokenized while the caller runs this one.

        Args:
            texts: Read one chunk ahead.
            overflow: See `tokenize`.
            stride: See `tokenize`.
            chunk: Texts per batch.
            prompt: See `tokenize`.

        Raises:
            InputError: See `tokenize`.
        """
        text = self._prompts.resolve(prompt)
        return self._tokenizer.stream(texts, overflow=overflow, stride=stride, chunk=chunk, prompt=text)

    def decode(self, ids: TokenIds, *, skip_special_tokens: bool = False) -> str:
        """Return the text of token ids.

        >>> model.decode(model.tokenize(["I am a boy."]).ids)  # doctest: +SKIP
        '[CLS] i am a boy. [SEP]'

        Raises:
            InputTypeError: It is not a list or an array of integers.
            InputError: An id is not in the vocabulary.
        """
        return self._vocabulary.decode(ids, skip_special_tokens=skip_special_tokens)

    def tokens(self, ids: TokenIds) -> list[str]:
        """Return the token of each id, such as `##ing`.

        Raises:
            InputTypeError: It is not a list or an array of integers.
            InputError: An id is not in the vocabulary.
        """
        return self._vocabulary.tokens(ids)

    def token_ids(self, tokens: Sequence[str]) -> list[int]:
        """Return the id of each token as it is, without special tokens. Other tokens get the id of the unknown token.

        Raises:
            InputTypeError: It is not a list of str.
            InputError: A token is not in the vocabulary, and there is no unknown token.
        """
        return self._vocabulary.ids(tokens)
