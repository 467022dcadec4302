"""Daft over a bundle. `make clusters` has the package."""

from pathlib import Path

import numpy as np
import pytest

import encort
from encort.errors import InputError

daft = pytest.importorskip("daft")
pytest.importorskip("daft.ai.protocols")
pytestmark = pytest.mark.slow


def test_the_provider_embeds_texts(bundle: Path, model: encort.Model) -> None:
    from daft.functions import embed_text

    from encort.integrations.daft import EncortProvider

    frame = daft.from_pydict({"text": ["hello", None, "my card"]})
    column = embed_text(frame["text"], provider=EncortProvider(), model=str(bundle), dimensions=8, prompt="", threads=1)
    vectors = frame.with_column("vector", column).to_pydict()["vector"]
    assert vectors[1] is None
    expected = model.embed(["hello", "my card"], dimensions=8, prompt="")
    np.testing.assert_allclose([vectors[0], vectors[2]], expected, atol=1e-6)
    assert frame.with_column("vector", column).schema()["vector"].dtype.size == 8


def test_a_bundle_must_be_named() -> None:
    from encort.integrations.daft import EncortProvider

    with pytest.raises(InputError, match="name the bundle"):
        EncortProvider().get_text_embedder()
