"""Make token prompts of ColBERT's settings: markers, lengths, expansion and skip list."""

import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from encort.runtime.bundle.manifest import LateInteraction
from encort.runtime.common.errors import CheckpointError
from encort.runtime.text.token_prompt import TokenPrompt

PUNCTUATION = tuple(string.punctuation)
"""Words that give no vector in documents, unless the settings say otherwise."""


@dataclass(frozen=True, kw_only=True)
class ColbertSettings:
    """Settings of ColBERT, as its libraries name them.

    Attributes:
        query_marker: Token behind the first token of queries; empty: none.
        document_marker: Token behind the first token of documents; empty: none.
        query_length: Tokens of a query, to which shorter ones are expanded.
        document_length: Most tokens of a document.
        expands: Whether queries are expanded with mask tokens.
        attends_expansion: Whether other tokens attend to these.
        skipped_words: Words of documents that give no vector.
    """

    query_marker: str
    document_marker: str
    query_length: int = 32
    document_length: int = 180
    expands: bool = True
    attends_expansion: bool = False
    skipped_words: Sequence[str] = PUNCTUATION

    def late_interaction(self, source: str, tokenizer: Any) -> LateInteraction:
        """Return the settings with the ids of a tokenizer.

        Args:
            source: File of the settings, for messages.
            tokenizer: Tokenizer of transformers.

        Raises:
            CheckpointError: The tokenizer lacks a marker or a mask token, or a length leaves no room for a text.
        """
        query = TokenPrompt(
            max_length=self.query_length,
            marker=_marker(source, tokenizer, self.query_marker),
            expansion=_expansion(source, tokenizer) if self.expands else None,
            attends_expansion=self.expands and self.attends_expansion,
        )
        document = TokenPrompt(
            max_length=self.document_length,
            marker=_marker(source, tokenizer, self.document_marker),
            skipped=_known_ids(tokenizer, self.skipped_words),
        )
        shortest = tokenizer.num_special_tokens_to_add() + 1
        for name, prompt in (("query", query), ("document", document)):
            if prompt.text_length(prompt.max_length) < shortest:
                raise CheckpointError(
                    f"{source}: {name}_length is {prompt.max_length}, which leaves no room for a text"
                )
        return LateInteraction(prompts={"query": query, "document": document})


def _marker(source: str, tokenizer: Any, token: str) -> int | None:
    ids = _known_ids(tokenizer, [token] if token else [])
    if token and not ids:
        raise CheckpointError(
            f"{source}: the tokenizer has no token {token!r}, which marks a text; add it to the tokenizer and resize "
            "the model's embeddings, as PyLate does when it saves a model"
        )
    return ids[0] if ids else None


def _expansion(source: str, tokenizer: Any) -> int:
    token = next((i for i in (tokenizer.mask_token_id, tokenizer.eos_token_id) if i is not None), None)
    if token is None:
        raise CheckpointError(f"{source}: queries are expanded with mask tokens, and the tokenizer has none")
    return int(token)


def _known_ids(tokenizer: Any, words: Sequence[str]) -> list[int]:
    """Return the ids of those words that are tokens of their own."""
    ids = [tokenizer.convert_tokens_to_ids(word) for word in words]
    unknown = (None, tokenizer.unk_token_id)
    return [
        number for word, number in zip(words, ids, strict=True) if number not in unknown or word == tokenizer.unk_token
    ]
