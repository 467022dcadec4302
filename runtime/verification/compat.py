"""Tell whether the vectors of two bundles may live in one index."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from encort.runtime.bundle.bundle import Bundle
from encort.runtime.bundle.manifest import GOLDEN_FILE, TOKENIZER_FILE, Similarity
from encort.runtime.common.errors import BundleError
from encort.runtime.hub.download import open_bundle
from encort.runtime.text.token_batch import Text
from encort.runtime.verification.space import Space

Verdict = Literal["same", "rotated", "truncated", "another"]
Vectors = NDArray[np.float64]

SAME_DIFFERENCE = 0.01
"""Largest difference of one space.

MiniLM differs by 1e-3 with weights rounded to float16 and by 8e-3 to bfloat16, and then 99.7 % of the ten nearest
neighbours stay the same if new queries search old vectors. It differs by 0.02 after a single step of fine-tuning
(97.6 % stay), by 0.11 after ten steps (90 %) and by 0.20 after thirty (82 %). `benchmarks/studies/space.py` measures
these numbers."""
ROTATED_DIFFERENCE = 0.005
"""Largest difference of the angles of a rotated space.

MiniLM's angles differ by 4e-4 with weights rounded to float16, by 3e-3 to bfloat16, and by 0.014 after a single step of
fine-tuning (`benchmarks/studies/space.py`). They are compared in place of the residual of the best rotation, which is
small for any two spaces with more dimensions than texts."""
LEAST_TEXTS = 8
"""Texts that a comparison needs."""
_EXACT_COSINE = 0.9999


@dataclass(frozen=True, kw_only=True)
class Compatibility:
    """Comparison of two bundles, by the golden vectors of the texts that both keep.

    Differences are relative: the root mean square of the difference, divided by that of the vectors around their mean.
    0 means equal, and unrelated vectors are at about 1.4.

    Attributes:
        verdict: `same`: the vectors may live in one index. `rotated`: they may after an orthogonal map of one of them.
            `truncated`: the vectors of one are the first values of the other's. `another`: none of these.
        difference: Difference of the vectors' directions, over the values that both have.
        difference_of_angles: Difference of the cosines between the texts, which no rotation changes.
        dimensions: Sizes of the vectors, old and new.
        ids: Ids of the spaces, old and new; None for a bundle of an earlier encort.
        texts: Number of texts.
        reasons: Why the verdict is not `same`.
        warnings: What else differs, and does not change the verdict.
    """

    verdict: Verdict
    difference: float
    difference_of_angles: float
    dimensions: tuple[int, int]
    ids: tuple[str | None, str | None]
    texts: int
    reasons: list[str]
    warnings: list[str]


def compat(old: str | Path, new: str | Path) -> Compatibility:
    """Tell whether the vectors of two bundles may live in one index. Neither bundle is run.

    >>> encort.compat("old.bundle", "new.bundle").verdict  # doctest: +SKIP
    'same'

    Args:
        old: Bundle whose vectors are in the index: a folder, or `hf://org/name@revision`.
        new: Bundle whose vectors are to be added to it.

    Raises:
        WrongTaskError: A bundle has no sentence embeddings.
        BundleError: A bundle is damaged, or their golden vectors have too few texts in common.
        HubError: The hub does not give a bundle.
    """
    bundles = [open_bundle(name, files=lambda _: [TOKENIZER_FILE, GOLDEN_FILE]) for name in (old, new)]
    spaces = [Space.read(bundle) for bundle in bundles]
    comparison = _Comparison(*spaces, texts=_common_texts(*spaces))
    verdict = comparison.verdict
    blockers = list(_other_settings(*spaces)) + list(comparison.other_lengths())
    reasons = list(comparison.reasons()) + blockers
    if verdict == "another":
        reasons += _likely_causes(*spaces)
    return Compatibility(
        verdict="another" if blockers else verdict,
        difference=comparison.difference,
        difference_of_angles=comparison.difference_of_angles,
        dimensions=comparison.dimensions,
        ids=(spaces[0].embedding.space, spaces[1].embedding.space),
        texts=len(comparison.texts),
        reasons=reasons,
        warnings=[*_warnings(*spaces), *comparison.warnings(), *_lossy_variants(*bundles)],
    )


class _Comparison:
    """Vectors of the same texts in two spaces."""

    def __init__(self, old: Space, new: Space, *, texts: list[Text]) -> None:
        self.texts = texts
        self._old, self._new = (np.array([space.vectors[text] for text in texts], np.float64) for space in (old, new))
        self._compares_angles_only = {old.embedding.similarity, new.embedding.similarity} == {Similarity.COSINE}
        self._changed_ids = sum(old.ids[text] != new.ids[text] for text in texts)
        self.dimensions = self._old.shape[1], self._new.shape[1]
        self._size = min(self.dimensions)
        self.difference = _difference(_unit(self._old[:, : self._size]), _unit(self._new[:, : self._size]))
        units = _unit(self._old), _unit(self._new)
        self.difference_of_angles = _difference(*(_centered_products(unit) for unit in units))

    @property
    def verdict(self) -> Verdict:
        """The verdict on the vectors, whatever the settings are."""
        is_whole = self.dimensions[0] == self.dimensions[1]
        if self.difference <= SAME_DIFFERENCE:
            return "same" if is_whole else "truncated"
        return "rotated" if is_whole and self.difference_of_angles <= ROTATED_DIFFERENCE else "another"

    @property
    def has_other_lengths(self) -> bool:
        """Whether the values that both have differ in length, in vectors of one direction or of a rotated one."""
        old, new = (np.linalg.norm(vectors[:, : self._size], axis=1) for vectors in (self._old, self._new))
        return self.verdict != "another" and bool(np.linalg.norm(old - new) > SAME_DIFFERENCE * np.linalg.norm(old))

    def reasons(self) -> Iterator[str]:
        """Yield why the vectors are not the same."""
        if self.verdict == "rotated":
            yield (
                "an orthogonal map turns the vectors of one into those of the other: the cosines between texts differ "
                f"by {self.difference_of_angles:.1e}"
            )
        if self.verdict == "truncated":
            name, other = ("new", "old") if self.dimensions[1] == self._size else ("old", "new")
            yield f"the {name} vectors are the first {self._size} of {max(self.dimensions)} values of the {other} ones"
        if self.verdict == "another":
            yield f"the vectors differ by {self.difference:.2f}; up to {SAME_DIFFERENCE:g} they would be the same"

    def other_lengths(self) -> Iterator[str]:
        """Yield that lengths differ, where the similarity depends on them."""
        if self.has_other_lengths and not self._compares_angles_only:
            yield "the vectors have the same directions and other lengths, on which their similarity depends"

    def warnings(self) -> Iterator[str]:
        """Yield what differs and does not change the verdict."""
        if self.has_other_lengths and self._compares_angles_only:
            yield "the vectors have other lengths: use an index that compares by cosine"
        if self._changed_ids:
            yield f"the tokenizers give other ids for {self._changed_ids} of {len(self.texts)} texts"


def _common_texts(old: Space, new: Space) -> list[Text]:
    """Return the texts that both bundles keep, without those that one of them cuts at its own limit."""
    cut = frozenset() if old.max_length == new.max_length else old.cut | new.cut
    texts = [text for text in old.vectors if text in new.vectors and text not in cut]
    if len(texts) < LEAST_TEXTS:
        raise BundleError(
            f"the bundles have golden vectors of {len(texts)} texts in common, too few to compare; export one again"
        )
    return texts


def _other_settings(old: Space, new: Space) -> Iterator[str]:
    """Yield settings by which callers of the two bundles get other vectors from the same graph."""
    if old.prompt != new.prompt:
        yield f"texts have the default prompt {old.prompt!r} in the old bundle, {new.prompt!r} in the new"
    prompts = old.embedding.prompts, new.embedding.prompts
    for name in sorted(prompts[0].keys() & prompts[1].keys()):
        if prompts[0][name] != prompts[1][name]:
            yield f"the prompt {name!r} is {prompts[0][name]!r} in the old bundle, {prompts[1][name]!r} in the new"
    if any(prompts) and old.embedding.include_prompt != new.embedding.include_prompt:
        yield "one bundle pools the tokens of prompts, and the other does not"


def _likely_causes(old: Space, new: Space) -> Iterator[str]:
    """Yield settings that change the vectors."""
    if old.embedding.pooling != new.embedding.pooling:
        first, second = (" and ".join(space.embedding.pooling) for space in (old, new))
        yield f"the pooling is {first} in the old bundle, {second} in the new"


def _warnings(old: Space, new: Space) -> Iterator[str]:
    if old.max_length != new.max_length:
        yield f"texts are cut at {old.max_length} tokens by the old bundle, at {new.max_length} by the new"
    first, second = old.embedding.similarity, new.embedding.similarity
    if first != second:
        yield f"vectors are compared by {first} in the old bundle, {second} in the new"
    for name in sorted(old.embedding.prompts.keys() ^ new.embedding.prompts.keys()):
        yield f"only one bundle has the prompt {name!r}"


def _lossy_variants(old: Bundle, new: Bundle) -> Iterator[str]:
    """Yield how far the vectors of the variant that `load` chooses are from the compared ones, if it is not exact."""
    for name, bundle in (("old", old), ("new", new)):
        first = bundle.manifest.variants[0]
        if first.fidelity is not None and first.fidelity.mean_cosine < _EXACT_COSINE:
            yield (
                f"the {name} bundle serves {first.name} by default, whose vectors have a mean cosine of "
                f"{first.fidelity.mean_cosine:.4f} to the compared ones"
            )


def _unit(vectors: Vectors) -> Vectors:
    unit: Vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    return unit


def _centered_products(vectors: Vectors) -> Vectors:
    """Return the products of all vectors around their mean, which no rotation changes: a Gram matrix."""
    centered = vectors - vectors.mean(axis=0)
    products: Vectors = centered @ centered.T
    return products


def _difference(first: Vectors, second: Vectors) -> float:
    """Return the size of the difference, relative to the spread of the rows around their mean."""
    spreads = [np.linalg.norm(rows - rows.mean(axis=0)) for rows in (first, second)]
    return float(np.linalg.norm(first - second) / max(np.sqrt(spreads[0] * spreads[1]), np.finfo(np.float64).tiny))
