"""`Backend`: the tokenizers library, with its errors as errors of encort."""

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

import tokenizers

from encort.runtime.common.errors import BundleError, InputError
from encort.runtime.text.token_batch import Text
from encort.runtime.text.words import SubwordMarks

Check = Callable[[], None]
"""Called between two steps of a long work. It raises an error if the result is not wanted any more."""


def check_nothing() -> None:
    """Let the work go on."""


class Backend:
    """A tokenizer of the tokenizers library, without padding and truncation.

    Attributes:
        library: Tokenizer of the library.
        cuts_beginning: Whether the beginning of a text over the limit is cut, and not its end. The file says so in
            its truncation.
    """

    def __init__(self, content: bytes) -> None:
        """Read the content of `tokenizer.json`.

        Raises:
            BundleError: The content is not a tokenizer.
        """
        try:
            self.library = tokenizers.Tokenizer.from_buffer(content)
        except BaseException as error:
            if not _is_failure(error):
                raise
            raise BundleError(f"tokenizer.json is not a tokenizer ({error}); export the bundle again") from error
        self.cuts_beginning = (self.library.truncation or {}).get("direction") == "left"
        self.library.no_padding()
        self.library.no_truncation()

    @cached_property
    def vocabulary_size(self) -> int:
        """Size of the vocabulary: ids are from 0 to one below it."""
        return 1 + int(max(self.library.get_vocab().values()))

    @cached_property
    def subword_marks(self) -> SubwordMarks:
        """Signs by which the pipelines of transformers find words."""
        model: Any = self.library.model
        # Unigram does not tell its unknown token.
        names = (getattr(model, "unk_token", None), "<unk>", "[UNK]")
        ids = (self.library.token_to_id(name) for name in names if name is not None)
        return SubwordMarks(
            has_prefix=bool(getattr(model, "continuing_subword_prefix", None)),
            unknown=next((number for number in ids if number is not None), None),
        )

    def encode(
        self,
        texts: Sequence[Text],
        *,
        numbers: Sequence[int],
        add_special_tokens: bool,
        with_offsets: bool,
        all_cores: bool,
        check: Check,
    ) -> list[Any]:
        """Return one encoding of the library per text.

        Args:
            texts: Texts or pairs.
            numbers: Number of each text for messages.
            add_special_tokens: Whether to add the special tokens.
            with_offsets: Whether to find the offsets of the tokens, which takes longer.
            all_cores: Whether the library may use all cores, for all texts at a time.
            check: Called before every text, or once with `all_cores`.

        Raises:
            InputError: The tokenizer fails on a text.
        """
        method = self.library.encode_batch if with_offsets else self.library.encode_batch_fast
        encode = partial(method, add_special_tokens=add_special_tokens)
        if all_cores:
            check()
            try:
                return list(encode(texts))
            except BaseException as error:
                if not _is_failure(error):
                    raise  # else go on one by one: the library does not say which text it is
        encodings = []
        for text, number in zip(texts, numbers, strict=True):
            check()
            try:
                encodings += encode([text])
            except BaseException as error:
                if not _is_failure(error):
                    raise
                raise InputError(_advice(error, number)) from error
        return encodings


def _advice(error: BaseException, number: int) -> str:
    """Return the message for a failure on a text."""
    if "ThreadPoolBuildError" in str(error):  # the first call starts a thread per core of the machine
        return (
            "the system grants this process too few threads for the tokenizers library: set "
            f"TOKENIZERS_PARALLELISM=false, or raise the limit of processes ({error})"
        )
    return (
        f"text {number}: the bundle's tokenizer fails on this text ({error}); change the text, or correct "
        "tokenizer.json of the checkpoint, which often lacks an unknown token, and export it again"
    )


def _is_failure(error: BaseException) -> bool:
    """Return whether the library failed: it raises bare `Exception`, and a panic of Rust is only a `BaseException`."""
    return type(error) is Exception or isinstance(error, ValueError) or type(error).__name__ == "PanicException"
