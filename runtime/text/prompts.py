"""Prompts: texts that some embedding models need before their inputs, such as `query: `."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from encort.runtime.common.errors import InputError, InputTypeError
from encort.runtime.common.output.escaping import is_unicode
from encort.runtime.text.token_prompt import TokenPrompt

QUERY_NAMES = ("query",)
"""Names of the prompt for search queries, as `encode_query` of sentence-transformers chooses it."""
DOCUMENT_NAMES = ("document", "passage", "corpus")
"""Names of the prompt for documents that are searched, the first choice first, as `encode_document` chooses it."""


@dataclass(frozen=True)
class Prompt:
    """A literal prompt, for a text that is not among the bundle's prompts.

    >>> model.embed(["Where is my card?"], prompt=encort.Prompt("query: "))  # doctest: +SKIP

    Attributes:
        text: Text that is put before each input as it is. A space at its end is part of it.
    """

    text: str

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise InputTypeError(f"the text of a prompt must be a str, got {self.text!r}")
        if not is_unicode(self.text):
            raise InputError(f"the prompt {self.text!r} has an unpaired surrogate, so it is not Unicode")


@dataclass(frozen=True)
class Prompts:
    """Prompts of a bundle.

    Attributes:
        texts: Texts of the prompts by name; of models of token vectors, their token prompts.
        default: Name of the prompt for callers who name none; None: they get no prompt.
    """

    texts: Mapping[str, str | TokenPrompt] = field(default_factory=dict)
    default: str | None = None

    def resolve(self, prompt: str | Prompt | None) -> str | TokenPrompt:
        """Return the text that is put before inputs, or the token prompt that adds tokens, too.

        Args:
            prompt: Name of a prompt; the empty string for no prompt; None for the default prompt.

        Raises:
            InputTypeError: It is neither a name nor a `Prompt`.
            InputError: There is no prompt of this name.
        """
        if isinstance(prompt, Prompt):
            return prompt.text
        name = self.default if prompt is None else prompt
        if not name:
            return ""
        if not isinstance(name, str):
            raise InputTypeError(f"prompt must be the name of a prompt, or Prompt(text) for a text; got {prompt!r}")
        if name not in self.texts:
            have = ", ".join(map(repr, self.texts)) or "none"
            raise InputError(
                f"there is no prompt {name!r}; this bundle has: {have}. "
                "In Python, encort.Prompt(text) is a prompt of your own"
            )
        text = self.texts[name]
        return Prompt(text).text if isinstance(text, str) else text

    def choose(self, names: Sequence[str]) -> str:
        """Return the name of the first prompt that the bundle has; the empty one, no prompt, if it has none of them."""
        return next((name for name in names if name in self.texts), "")
