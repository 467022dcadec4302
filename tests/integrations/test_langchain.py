"""A bundle in LangChain: vector store, retriever and reranking."""

import asyncio
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import encort

pytest.importorskip("langchain_core", reason="needs langchain-core")
pytest.importorskip("langchain_classic", reason="needs langchain-classic")

from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore

from encort.integrations.langchain import EncortEmbeddings, EncortRerank

TEXTS = ["my card is lost", "hello", "change the pin", "the play is lost", "my pin"]
QUERY = "where is my card"


@pytest.fixture
def embeddings(bundle: Path) -> Iterator[EncortEmbeddings]:
    with EncortEmbeddings(bundle, threads=1) as embeddings:
        yield embeddings


@pytest.fixture
def rerank(reranker_bundle: Path) -> Iterator[EncortRerank]:
    with EncortRerank(reranker_bundle, top_n=2, threads=1) as rerank:
        yield rerank


def test_documents_and_queries_have_the_prompts_of_the_bundle(
    embeddings: EncortEmbeddings, model: encort.Model
) -> None:
    documents = embeddings.embed_documents(TEXTS)
    np.testing.assert_allclose(documents, model.embed(TEXTS, prompt="passage"), atol=1e-6)
    np.testing.assert_allclose(embeddings.embed_query(QUERY), model.embed([QUERY], prompt="query")[0], atol=1e-6)
    assert type(documents[0][0]) is float
    assert embeddings.embed_documents([]) == []


def test_dimensions_and_prompts_can_be_chosen(model: encort.Model) -> None:
    embeddings = EncortEmbeddings(model, query_prompt="", dimensions=8)
    expected = model.embed([QUERY], prompt="", dimensions=8)[0]
    np.testing.assert_allclose(embeddings.embed_query(QUERY), expected, atol=1e-6)
    assert len(embeddings.embed_documents(["hello"])[0]) == 8


def test_a_retriever_finds_what_the_model_finds_most_similar(embeddings: EncortEmbeddings, model: encort.Model) -> None:
    store = InMemoryVectorStore(embeddings)
    store.add_texts(TEXTS)
    found = store.as_retriever(search_kwargs={"k": 3}).invoke(QUERY)
    query, texts = model.embed([QUERY], prompt="query")[0], model.embed(TEXTS, prompt="passage")
    cosines = texts @ query / np.linalg.norm(texts, axis=1)
    assert [document.page_content for document in found] == [TEXTS[index] for index in np.argsort(-cosines)[:3]]


def test_asyncio_gives_the_same(embeddings: EncortEmbeddings) -> None:
    async def embed() -> tuple[list[list[float]], list[list[float]]]:
        queries = [embeddings.aembed_query(text) for text in TEXTS]
        return await embeddings.aembed_documents(TEXTS), list(await asyncio.gather(*queries))

    documents, queries = asyncio.run(embed())
    np.testing.assert_allclose(documents, embeddings.embed_documents(TEXTS), atol=1e-6)
    np.testing.assert_allclose(queries, [embeddings.embed_query(text) for text in TEXTS], atol=1e-6)


def test_a_retriever_reranks_and_gives_scores(
    embeddings: EncortEmbeddings, rerank: EncortRerank, reranker: encort.Model
) -> None:
    store = InMemoryVectorStore.from_texts(TEXTS, embeddings, metadatas=[{"row": row} for row in range(len(TEXTS))])
    base = store.as_retriever(search_kwargs={"k": len(TEXTS)})
    retriever = ContextualCompressionRetriever(base_compressor=rerank, base_retriever=base)
    found = retriever.invoke(QUERY)
    best = reranker.rank(QUERY, TEXTS, top_k=2)
    assert [document.metadata["row"] for document in found] == [item.index for item in best]
    np.testing.assert_allclose(
        [document.metadata["relevance_score"] for document in found], [item.score for item in best], atol=1e-5
    )
    assert asyncio.run(retriever.ainvoke(QUERY)) == found
    assert all("relevance_score" not in document.metadata for document in base.invoke(QUERY))


def test_reranking_nothing_gives_nothing(rerank: EncortRerank) -> None:
    assert list(rerank.compress_documents([], QUERY)) == []
    assert len(rerank.compress_documents([Document("hello")], QUERY)) == 1


def test_pickled_adapters_are_opened_again(embeddings: EncortEmbeddings, rerank: EncortRerank) -> None:
    with pickle.loads(pickle.dumps(embeddings)) as copy:
        np.testing.assert_allclose(copy.embed_query(QUERY), embeddings.embed_query(QUERY), atol=1e-6)
    with pickle.loads(pickle.dumps(rerank)) as other:
        documents = [Document(text) for text in TEXTS]
        assert other.compress_documents(documents, QUERY) == rerank.compress_documents(documents, QUERY)
        assert other.top_n == 2
