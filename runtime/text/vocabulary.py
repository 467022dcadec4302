"""`Vocabulary`: from tokens to ids and back, without the rules that split a text."""

import reprlib
from collections.abc import Sequence

from encort.runtime.common.errors import InputError, InputTypeError
from encort.runtime.text.backend import Backend
from encort.runtime.text.token_batch import TokenIds
from encort.runtime.text.validation import integers


class Vocabulary:
    """Tokens of a tokenizer and their ids."""

    def __init__(self, backend: Backend) -> None:
        """Read the vocabulary of a tokenizer."""
        self._backend = backend

    def tokens(self, ids: TokenIds) -> list[str]:
        """Return the token of each id.

        Raises:
            InputTypeError: It is not a list or an array of integers.
            InputError: An id is not in the vocabulary.
        """
        tokens: list[str] = []
        for number in self._checked(ids):
            is_inside = 0 <= number < self._backend.vocabulary_size
            token = self._backend.library.id_to_token(number) if is_inside else None
            if token is None:
                raise InputError(f"token id {number} is not in the vocabulary of this bundle")
            tokens.append(token)
        return tokens

    def ids(self, tokens: Sequence[str]) -> list[int]:
        """Return the id of each token as it is, without special tokens; of others the id of the unknown token.

        Raises:
            InputTypeError: It is not a list of str.
            InputError: A token is not in the vocabulary, and there is no unknown token.
        """
        is_list = isinstance(tokens, Sequence) and not isinstance(tokens, str)
        if not is_list or not all(isinstance(token, str) for token in tokens):
            raise InputTypeError(f"expected tokens, a list of str, got {reprlib.repr(tokens)}")
        return [self._id(token) for token in tokens]

    def decode(self, ids: TokenIds, *, skip_special_tokens: bool = False) -> str:
        """Return the text of token ids, as the tokenizers library joins it.

        Raises:
            InputTypeError: It is not a list or an array of integers.
            InputError: An id is not in the vocabulary.
        """
        self.tokens(ids)  # refuses ids that the library would leave out
        return str(self._backend.library.decode(self._checked(ids), skip_special_tokens=skip_special_tokens))

    def text(self, number: int) -> str:
        """Return the text of one token; empty for an id without a token, which a model may predict all the same."""
        return str(self._backend.library.decode([number], skip_special_tokens=False))

    def _id(self, token: str) -> int:
        number = self._backend.library.token_to_id(token)
        number = self._backend.subword_marks.unknown if number is None else number
        if number is None:
            raise InputError(f"token {token!r} is not in the vocabulary, and this tokenizer has no unknown token")
        return int(number)

    def _checked(self, ids: TokenIds) -> list[int]:
        numbers = integers(ids)
        if numbers is None:
            raise InputTypeError(f"expected token ids, a list of int, got {reprlib.repr(ids)}")
        return numbers
