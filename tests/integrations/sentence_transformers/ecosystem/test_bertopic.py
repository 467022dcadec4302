"""BERTopic takes a bundle as its embedding model, and finds the same topics."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("bertopic")

from bertopic import BERTopic
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from tests.integrations.sentence_transformers.conftest import Both

TEXTS = [f"{words} {number % 10}" for number in range(40) for words in ("my card is lost", "change the pin", "hello")]


def topics(model: Any) -> Any:
    found = BERTopic(
        embedding_model=model,
        umap_model=PCA(n_components=3, random_state=0),
        hdbscan_model=KMeans(n_clusters=3, n_init=3, random_state=0),
    )
    numbers, _ = found.fit_transform(TEXTS)
    nearest, similarities = found.find_topics("card", top_n=2)
    return numbers, found.get_topics().keys(), nearest, similarities


def test_topics_are_those_of_sentence_transformers(both: Both) -> None:
    ours, theirs = topics(both.ours), topics(both.theirs)
    assert ours[:3] == theirs[:3]
    np.testing.assert_allclose(ours[3], theirs[3], atol=1e-5)
    assert len(set(ours[0])) == 3
