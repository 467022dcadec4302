"""`Aggregation`: how a tagger makes spans of the tags of tokens."""

from enum import StrEnum
from typing import Literal

AggregationName = Literal["word", "none", "simple", "first", "average", "max"]
"""Values of `Aggregation`."""


class Aggregation(StrEnum):
    """Way in which a tagger makes spans of the tags of tokens.

    `word`: A word has the tag of its first token, as in training. It ends at white space and punctuation.
    `none`, `simple`, `first`, `average`, `max`: As the pipeline of transformers has them. `none` gives every token that
        has a tag; `simple` joins neighbouring tokens; the others give one tag to each word of the pipeline: that of its
        first token, of the mean of its tokens, or of its most certain token.
    """

    WORD = "word"
    NONE = "none"
    SIMPLE = "simple"
    FIRST = "first"
    AVERAGE = "average"
    MAX = "max"
