"""A bundle in Chroma: collections in memory and on disk, which remember their embedding function."""

import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import encort
from encort.errors import InputError
from encort.runtime.bundle.manifest import Similarity

pytest.importorskip("chromadb", reason="needs chromadb")

import chromadb
from chromadb.api.client import SharedSystemClient

from encort.integrations.chroma import EncortEmbeddingFunction

TEXTS = ["my card is lost", "hello", "change the pin", "the play is lost", "my pin"]
IDS = [str(row) for row in range(len(TEXTS))]
QUERY = "where is my card"


def fill(client: Any, function: EncortEmbeddingFunction, **options: Any) -> Any:
    collection = client.create_collection(f"c-{uuid.uuid4()}", embedding_function=function, **options)
    collection.add(ids=IDS, documents=TEXTS)
    return collection


def best(model: encort.Model, number: int) -> list[str]:
    """Return the ids of the texts that are most similar to the query."""
    query, texts = model.embed([QUERY], prompt="query")[0], model.embed(TEXTS, prompt="passage")
    cosines = texts @ query / np.linalg.norm(texts, axis=1)
    return [IDS[index] for index in np.argsort(-cosines)[:number]]


def test_a_collection_finds_what_the_model_finds_most_similar(bundle: Path, model: encort.Model) -> None:
    collection = fill(chromadb.EphemeralClient(), EncortEmbeddingFunction(bundle, threads=1))
    found = collection.query(query_texts=[QUERY, QUERY], n_results=3)
    assert found["ids"] == [best(model, 3)] * 2
    stored = collection.get(ids=IDS, include=["embeddings"])["embeddings"]
    np.testing.assert_allclose(stored, model.embed(TEXTS, prompt="passage"), atol=1e-6)
    assert collection.configuration["hnsw"]["space"] == "cosine"


def test_a_collection_on_disk_makes_its_function_again(bundle: Path, model: encort.Model, tmp_path: Path) -> None:
    function = EncortEmbeddingFunction(bundle, query_prompt=encort.Prompt("pin "), dimensions=8, threads=1)
    name = fill(chromadb.PersistentClient(tmp_path / "db"), function).name
    SharedSystemClient.clear_system_cache()  # as in another process
    collection = chromadb.PersistentClient(tmp_path / "db").get_collection(name)
    assert collection.configuration["embedding_function"].get_config() == function.get_config()
    query = model.embed([QUERY], prompt=encort.Prompt("pin "), dimensions=8)[0]
    texts = model.embed(TEXTS, prompt="passage", dimensions=8)
    order = np.argsort(-texts @ query / np.linalg.norm(texts, axis=1))
    assert collection.query(query_texts=[QUERY], n_results=2)["ids"][0] == [IDS[index] for index in order[:2]]


def test_functions_of_one_bundle_share_a_model(bundle: Path) -> None:
    client = chromadb.EphemeralClient()
    function = EncortEmbeddingFunction(bundle, dimensions=8, threads=1)
    name = fill(client, function).name
    again = client.get_collection(name).configuration["embedding_function"]
    assert again is not function
    assert again._model is function._model
    assert EncortEmbeddingFunction(bundle, threads=2)._model is not function._model


def test_a_collection_can_be_opened_with_a_bundle_that_moved(bundle: Path, tmp_path: Path) -> None:
    client = chromadb.PersistentClient(tmp_path / "db")
    moved = tmp_path / "moved.bundle"
    moved.symlink_to(bundle)
    function = EncortEmbeddingFunction(moved, threads=1)
    name = fill(client, function).name
    function.close()
    moved.unlink()
    with pytest.raises(encort.errors.BundleFileMissingError, match="there is no folder"):
        client.get_collection(name).query(query_texts=[QUERY])
    collection = client.get_collection(name, embedding_function=EncortEmbeddingFunction(bundle, threads=1))
    assert len(collection.query(query_texts=[QUERY], n_results=2)["ids"][0]) == 2


@pytest.mark.parametrize(
    ("similarity", "space"), [(Similarity.COSINE, "cosine"), (Similarity.DOT, "ip"), (Similarity.EUCLIDEAN, "l2")]
)
def test_the_default_space_is_the_similarity_of_the_bundle(
    similarity: Similarity, space: str, model: encort.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(vars(model.manifest.embedding), "similarity", similarity)
    collection = fill(chromadb.EphemeralClient(), EncortEmbeddingFunction(model))
    assert collection.configuration["hnsw"]["space"] == space


def test_a_similarity_that_chroma_does_not_have_is_said(model: encort.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vars(model.manifest.embedding), "similarity", Similarity.MANHATTAN)
    with pytest.warns(UserWarning, match="Chroma has no manhattan distance; the collection uses l2"):
        assert EncortEmbeddingFunction(model).default_space() == "l2"


def test_a_configuration_is_checked(bundle: Path) -> None:
    config = EncortEmbeddingFunction(bundle, threads=1).get_config()
    EncortEmbeddingFunction.validate_config(config)
    with pytest.raises(InputError, match="must name a bundle"):
        EncortEmbeddingFunction.validate_config({"model_name": "x"})
    with pytest.raises(InputError, match="there is no option model_name"):
        EncortEmbeddingFunction.validate_config({**config, "model_name": "x"})


def test_a_collection_cannot_change_what_its_embeddings_were_made_with(bundle: Path) -> None:
    collection = fill(chromadb.EphemeralClient(), EncortEmbeddingFunction(bundle, threads=1))
    collection.modify(configuration={"embedding_function": EncortEmbeddingFunction(bundle, precision="fp32")})
    with pytest.raises(InputError, match="were made with dimensions=None, not 8; make a new collection"):
        collection.modify(configuration={"embedding_function": EncortEmbeddingFunction(bundle, dimensions=8)})
