"""A bundle in LlamaIndex: index, retriever, query engine and reranking."""

import asyncio
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import encort
from encort.errors import InputError

pytest.importorskip("llama_index.core", reason="needs llama-index-core")

from llama_index.core import Document, VectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.llms import MockLLM
from llama_index.core.schema import NodeWithScore, TextNode

from encort.integrations.llama_index import EncortEmbedding, EncortRerank

TEXTS = ["my card is lost", "hello", "change the pin", "the play is lost", "my pin"]
QUERY = "where is my card"


@pytest.fixture
def embedding(bundle: Path) -> Iterator[EncortEmbedding]:
    with EncortEmbedding(bundle, threads=1) as embedding:
        yield embedding


@pytest.fixture
def rerank(reranker_bundle: Path) -> Iterator[EncortRerank]:
    with EncortRerank(reranker_bundle, top_n=2, threads=1) as rerank:
        yield rerank


def test_texts_and_queries_have_the_prompts_of_the_bundle(embedding: EncortEmbedding, model: encort.Model) -> None:
    texts = model.embed(TEXTS, prompt="passage")
    np.testing.assert_allclose(embedding.get_text_embedding_batch(TEXTS), texts, atol=1e-6)
    np.testing.assert_allclose(embedding.get_text_embedding(TEXTS[0]), texts[0], atol=1e-6)
    query = model.embed([QUERY], prompt="query")[0]
    np.testing.assert_allclose(embedding.get_query_embedding(QUERY), query, atol=1e-6)


def test_asyncio_gives_the_same(embedding: EncortEmbedding) -> None:
    async def embed() -> tuple[list[list[float]], list[float], list[float]]:
        return (
            await embedding.aget_text_embedding_batch(TEXTS),
            await embedding.aget_text_embedding(TEXTS[0]),
            await embedding.aget_query_embedding(QUERY),
        )

    texts, text, query = asyncio.run(embed())
    np.testing.assert_allclose(texts, embedding.get_text_embedding_batch(TEXTS), atol=1e-6)
    np.testing.assert_allclose(text, texts[0], atol=1e-6)
    np.testing.assert_allclose(query, embedding.get_query_embedding(QUERY), atol=1e-6)


def test_a_query_engine_retrieves_and_reranks(
    embedding: EncortEmbedding, rerank: EncortRerank, reranker: encort.Model
) -> None:
    index = VectorStoreIndex.from_documents([Document(text=text) for text in TEXTS], embed_model=embedding)
    engine = index.as_query_engine(llm=MockLLM(), similarity_top_k=len(TEXTS), node_postprocessors=[rerank])
    best = reranker.rank(QUERY, TEXTS, top_k=2)
    for response in (engine.query(QUERY), asyncio.run(engine.aquery(QUERY))):
        assert [node.text for node in response.source_nodes] == [TEXTS[item.index] for item in best]
        scores = [node.score for node in response.source_nodes]
        np.testing.assert_allclose(scores, [item.score for item in best], atol=1e-5)


def test_the_nodes_before_reranking_keep_their_scores(rerank: EncortRerank) -> None:
    nodes = [NodeWithScore(node=TextNode(text=text), score=0.5) for text in TEXTS]
    assert len(rerank.postprocess_nodes(nodes, query_str=QUERY)) == 2
    assert {node.score for node in nodes} == {0.5}
    assert rerank.postprocess_nodes([], query_str=QUERY) == []


def test_reranking_without_a_query_says_what_to_do(rerank: EncortRerank) -> None:
    with pytest.raises(InputError, match="query_str="):
        rerank.postprocess_nodes([NodeWithScore(node=TextNode(text="hello"))])


def test_an_ingestion_pipeline_embeds_the_nodes(embedding: EncortEmbedding, model: encort.Model) -> None:
    nodes = IngestionPipeline(transformations=[embedding]).run(nodes=[TextNode(text=text) for text in TEXTS])
    embeddings = [node.embedding for node in nodes]
    np.testing.assert_allclose(np.array(embeddings), model.embed(TEXTS, prompt="passage"), atol=1e-6)


def test_adapters_are_the_same_after_json_and_after_pickle(bundle: Path, reranker: encort.Model) -> None:
    embedding = EncortEmbedding(bundle, dimensions=8, query_prompt=encort.Prompt("pin "), threads=1, num_workers=2)
    rerank = EncortRerank(reranker, top_n=None)
    for copy in (EncortEmbedding.from_json(embedding.to_json()), pickle.loads(pickle.dumps(embedding))):
        assert copy.to_dict() == embedding.to_dict()
        assert copy.load_options == {"threads": 1}
        assert copy.model_name == bundle.name
        assert copy.get_query_embedding(QUERY) == embedding.get_query_embedding(QUERY)
        copy.close()
    for other in (EncortRerank.from_json(rerank.to_json()), pickle.loads(pickle.dumps(rerank))):
        assert other.to_dict() == rerank.to_dict()
        assert other.load_options == {"threads": 1}
    embedding.close()
