"""`TokenPrompt`: how a model of token vectors, such as ColBERT, reads its queries or its documents."""

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class TokenPrompt:
    """Tokens that are added to one kind of text, and tokens that give no vector.

    Attributes:
        max_length: Most tokens of a text, marker and special tokens included.
        marker: Token id behind the first token of each text; None: none.
        expansion: Token id that fills shorter texts up to `max_length`, and gives vectors too; None: none.
        attends_expansion: Whether the tokens of the text attend to the tokens of the expansion.
        skipped: Token ids that are read, but give no vector.
        text: Text that is put before each text.
    """

    max_length: int
    marker: int | None = None
    expansion: int | None = None
    attends_expansion: bool = False
    skipped: list[int] = field(default_factory=list)
    text: str = ""

    def text_length(self, limit: int) -> int:
        """Return the most tokens of a text before the marker is added, with a limit of the whole."""
        return min(self.max_length, limit) - (self.marker is not None)


def prompt_text(prompt: str | TokenPrompt) -> str:
    """Return the text that a prompt puts before each text."""
    return prompt if isinstance(prompt, str) else prompt.text
