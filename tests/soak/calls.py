"""Calls of a model or a service, and the results that a lone call gives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np

import encort
from tests.runtime.serving.helpers import assert_same
from tests.soak.models import TEXTS, Models, random_text

Text = str | tuple[str, str]


@dataclass(frozen=True, eq=False)
class Call:
    """A method of a model and of a service.

    Attributes:
        method: Its name.
        options: Its keyword arguments.
        takes_pairs: Whether its inputs are pairs of texts.
    """

    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    takes_pairs: bool = False

    def __call__(self, model: Any, text: Any, **options: Any) -> Any:
        """Call the method of a `Model` with a list of texts, or the method of a service with one text."""
        return getattr(model, self.method)(text, **self.options, **options)

    def random_text(self, random: Random) -> Text:
        """Return one of `TEXTS` or a new text; for a method that takes pairs, a pair."""
        text = random.choice(TEXTS) if random.random() < 0.5 else random_text(random)
        return (random_text(random, most_words=8), text) if self.takes_pairs else text


CALLS = (
    Call("embed"),
    Call("embed_tokens"),
    Call("classify", {"head": "topics"}),
    Call("classify", {"head": "moods"}),
    Call("classify", {"head": "follows"}),
    Call("score"),
    Call("tag"),
    Call("answer", {"n_best": 2}, takes_pairs=True),
)
"""Calls of the bundle with all heads."""

CLASSIFIER_CALLS = (Call("embed"), Call("classify"))
"""Calls of the bundles of text classifiers."""


class Reference:
    """Lone calls of a model of its own, one after the other. Results of other models are compared with them."""

    def __init__(self, models: Models) -> None:
        """Open the bundle with all heads, and compare it with eager PyTorch."""
        self._model = encort.load(models.all_heads, threads=1)
        expected = models.expected()
        for index, text in enumerate(TEXTS):
            (probabilities,) = self._model.classify([text], head="topics")
            np.testing.assert_allclose(list(probabilities.scores.values()), expected["classify"][index], atol=1e-4)
            np.testing.assert_allclose(self._model.embed([text])[0], expected["embed"][index], atol=1e-4)

    def check(self, call: Call, texts: Sequence[Text], results: Sequence[Any]) -> None:
        """Compare the results of a call, one for each text, with those of lone calls."""
        assert len(results) == len(texts)
        for text, result in zip(texts, results, strict=True):
            assert_same(result, call(self._model, [text])[0])

    def ids(self, text: Text) -> bytes:
        """Return the token ids of a text that fits into one window."""
        return self._model.tokenize([text]).ids.tobytes()

    def close(self) -> None:
        """Close the model."""
        self._model.close()
