"""Models of sentence-transformers and the bundles that are exported from them."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import MakeCheckpoint

SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "prompts": {
        "prompts": {"query": "the pin ", "passage": "my card is ", "": ""},
        "default_prompt_name": "passage",
        "similarity_fn_name": "dot",
    },
    "matryoshka": {"truncate_dim": 24, "normalize": True},
    "unpooled prompts": {
        "prompts": {"query": "the pin ", "document": "hello "},
        "pooling": ["cls", "mean"],
        "include_prompt": False,
        "dense": 36,
    },
}
"""Settings of the saved models, by name."""

Both = SimpleNamespace
"""The folder of a saved model (`folder`), the bundle (`bundle`), and the model that opens each (`theirs`, `ours`)."""


@pytest.fixture(scope="package")
def make_encoder(make_checkpoint: MakeCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`make_encoder(normalize=True, prompts={...})` saves a tiny model as sentence-transformers does."""

    def make(
        *,
        normalize: bool = False,
        pooling: Sequence[str] = ("mean",),
        include_prompt: bool = True,
        dense: int | None = None,
        **settings: Any,
    ) -> Path:
        import torch
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer import modules as models

        torch.manual_seed(5)

        transformer = models.Transformer(str(make_checkpoint(seed=5)))
        size = transformer.get_embedding_dimension()
        modules = [transformer, models.Pooling(size, list(pooling), include_prompt=include_prompt)]
        if dense is not None:
            modules.append(models.Dense(size * len(pooling), dense))
        if normalize:
            modules.append(models.Normalize())
        model = SentenceTransformer(modules=modules, **settings)
        folder = tmp_path_factory.mktemp("encoder")
        model.save_pretrained(str(folder))
        return folder

    return make


@pytest.fixture(scope="package", params=SETTINGS)
def both(
    request: pytest.FixtureRequest, make_encoder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Both]:
    """A saved encoder and its bundle, each opened by its library; one for each of `SETTINGS`."""
    import sentence_transformers

    from encort.export.exporter import export_bundle
    from encort.integrations.sentence_transformers import SentenceTransformer

    folder = make_encoder(**SETTINGS[request.param])
    bundle = export_bundle(folder, tmp_path_factory.mktemp("bundles") / "b", variants=["fp32"]).folder
    theirs = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    ours = SentenceTransformer(str(bundle), device="cpu")
    yield Both(folder=folder, bundle=bundle, theirs=theirs, ours=ours)
    ours.encort_model.close()


CROSS_ENCODERS: dict[str, tuple[list[str], str | None]] = {
    "score": (["LABEL_0"], "Sigmoid"),
    "logit": (["LABEL_0"], "Identity"),
    "classes": (["no", "maybe", "yes"], "Identity"),
    "probabilities": (["no", "maybe", "yes"], "Softmax"),
    "score, unnamed": (["LABEL_0"], None),
    "classes, unnamed": (["no", "maybe", "yes"], None),
}
"""Labels and activation of the saved cross-encoders. Without an activation, transformers saved them."""


@pytest.fixture(scope="package", params=CROSS_ENCODERS)
def both_cross(
    request: pytest.FixtureRequest, make_checkpoint: MakeCheckpoint, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Both]:
    """A saved cross-encoder and its bundle, each opened by its library; one for each of `CROSS_ENCODERS`."""
    import sentence_transformers
    import torch

    from encort.export.exporter import export_bundle
    from encort.integrations.sentence_transformers import CrossEncoder

    labels, activation = CROSS_ENCODERS[request.param]
    folder, parent = make_checkpoint(labels=labels, seed=6), tmp_path_factory.mktemp("cross")
    if activation is not None:
        function = getattr(torch.nn, activation)()
        saved = sentence_transformers.CrossEncoder(str(folder), device="cpu", activation_fn=function)
        folder = parent / "saved"
        saved.save_pretrained(str(folder))
    bundle = export_bundle(folder, parent / "bundle", variants=["fp32"]).folder
    theirs = sentence_transformers.CrossEncoder(str(folder), device="cpu")
    ours = CrossEncoder(str(bundle), device="cpu")
    yield Both(folder=folder, bundle=bundle, theirs=theirs, ours=ours)
    ours.encort_model.close()
