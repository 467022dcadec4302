"""A bundle in Haystack: pipelines that embed, retrieve and rank, and their saved form."""

import asyncio
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import encort
from encort.errors import InputTypeError

pytest.importorskip("haystack", reason="needs haystack-ai")

from haystack import Document, Pipeline
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.components.writers import DocumentWriter
from haystack.document_stores.in_memory import InMemoryDocumentStore

from encort.integrations.haystack import EncortDocumentEmbedder, EncortRanker, EncortTextEmbedder

TEXTS = ["my card is lost", "hello", "change the pin", "the play is lost", "my pin"]
QUERY = "where is my card"
ALLOWED = ["encort.integrations.haystack"]


def documents() -> list[Document]:
    return [Document(content=text, meta={"row": row}) for row, text in enumerate(TEXTS)]


def indexing(bundle: Path, store: InMemoryDocumentStore) -> Pipeline:
    pipeline = Pipeline()
    pipeline.add_component("embedder", EncortDocumentEmbedder(bundle, threads=1))
    pipeline.add_component("writer", DocumentWriter(store))
    pipeline.connect("embedder", "writer")
    return pipeline


def querying(bundle: Path, reranker_bundle: Path, store: InMemoryDocumentStore) -> Pipeline:
    pipeline = Pipeline()
    pipeline.add_component("embedder", EncortTextEmbedder(bundle, threads=1))
    pipeline.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=len(TEXTS)))
    pipeline.add_component("ranker", EncortRanker(reranker_bundle, top_k=2, threads=1))
    pipeline.connect("embedder.embedding", "retriever.query_embedding")
    pipeline.connect("retriever.documents", "ranker.documents")
    return pipeline


def saved_and_loaded(pipeline: Pipeline) -> Pipeline:
    return Pipeline.loads(pipeline.dumps(), allowed_modules=ALLOWED)


def test_pipelines_embed_retrieve_and_rank_also_after_yaml(
    bundle: Path, reranker_bundle: Path, reranker: encort.Model
) -> None:
    store = InMemoryDocumentStore()
    index = saved_and_loaded(indexing(bundle, store))
    store = index.get_component("writer").document_store
    assert index.run({"embedder": {"documents": documents()}}) == {"writer": {"documents_written": len(TEXTS)}}
    query = saved_and_loaded(querying(bundle, reranker_bundle, store))
    query.get_component("retriever").document_store = store
    inputs: dict[str, Any] = {"embedder": {"text": QUERY}, "ranker": {"query": QUERY}}
    best = reranker.rank(QUERY, TEXTS, top_k=2)
    for result in (query.run(inputs), asyncio.run(query.run_async(inputs))):
        found = result["ranker"]["documents"]
        assert [document.meta["row"] for document in found] == [item.index for item in best]
        np.testing.assert_allclose([document.score for document in found], [item.score for item in best], atol=1e-5)
    index.close()
    query.close()


def test_embeddings_have_the_prompts_of_the_bundle(model: encort.Model) -> None:
    query = EncortTextEmbedder(model).run(QUERY)["embedding"]
    np.testing.assert_allclose(query, model.embed([QUERY], prompt="query")[0], atol=1e-6)
    given = documents()
    embedded = EncortDocumentEmbedder(model).run(given)["documents"]
    expected = model.embed(TEXTS, prompt="passage")
    np.testing.assert_allclose([document.embedding for document in embedded], expected, atol=1e-6)
    assert [document.meta for document in embedded] == [document.meta for document in given]
    assert given[0].embedding is None
    assert EncortDocumentEmbedder(model).run([]) == {"documents": []}


def test_fields_of_the_metadata_are_read_before_the_content(model: encort.Model, reranker: encort.Model) -> None:
    options: dict[str, Any] = {"meta_fields_to_embed": ["title", "absent"], "embedding_separator": " / "}
    given = [Document(content="is lost", meta={"title": "my card"}), Document(meta={"title": None})]
    embedded = EncortDocumentEmbedder(model, **options).run(given)["documents"]
    expected = model.embed(["my card / is lost", ""], prompt="passage")
    np.testing.assert_allclose([document.embedding for document in embedded], expected, atol=1e-6)
    ranked = EncortRanker(reranker, **options).run(QUERY, given)["documents"]
    (best, _) = reranker.rank(QUERY, ["my card / is lost", ""])
    assert ranked[0].score == pytest.approx(best.score, abs=1e-5)


def test_the_number_of_documents_can_be_given_to_each_run(reranker: encort.Model) -> None:
    ranker = EncortRanker(reranker, top_k=2)
    assert len(ranker.run(QUERY, documents())["documents"]) == 2
    assert len(ranker.run(QUERY, documents(), top_k=3)["documents"]) == 3
    assert len(EncortRanker(reranker, top_k=None).run(QUERY, documents())["documents"]) == len(TEXTS)


def test_warming_up_opens_the_model_and_closing_releases_it(bundle: Path) -> None:
    pipeline = Pipeline()
    embedder = EncortTextEmbedder(bundle, threads=1)
    pipeline.add_component("embedder", embedder)
    assert embedder._model._opened is None
    pipeline.warm_up()
    assert embedder._model._opened is not None
    pipeline.close()
    assert embedder._model._opened is None


def test_saved_parameters_are_those_that_were_given(model: encort.Model, bundle: Path) -> None:
    saved = EncortTextEmbedder(model, prompt=encort.Prompt("pin "), dimensions=8).to_dict()
    assert saved == {
        "type": "encort.integrations.haystack.EncortTextEmbedder",
        "init_parameters": {"bundle": str(bundle), "prompt": {"text": "pin "}, "dimensions": 8, "threads": 1},
    }
    with EncortTextEmbedder.from_dict(saved) as loaded:
        assert loaded.to_dict() == saved
        expected = model.embed([QUERY], prompt=encort.Prompt("pin "), dimensions=8)[0]
        np.testing.assert_allclose(loaded.run(QUERY)["embedding"], expected, atol=1e-6)


def test_pickled_components_are_opened_again(bundle: Path) -> None:
    with EncortTextEmbedder(bundle, threads=1) as embedder, pickle.loads(pickle.dumps(embedder)) as copy:
        np.testing.assert_allclose(copy.run(QUERY)["embedding"], embedder.run(QUERY)["embedding"], atol=1e-6)


def test_the_wrong_kind_of_input_names_the_other_component(model: encort.Model) -> None:
    text_embedder: Any = EncortTextEmbedder(model)
    with pytest.raises(InputTypeError, match="EncortDocumentEmbedder takes documents"):
        text_embedder.run(documents())
    document_embedder: Any = EncortDocumentEmbedder(model)
    with pytest.raises(InputTypeError, match="EncortTextEmbedder takes a str"):
        document_embedder.run(QUERY)
