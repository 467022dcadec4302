import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import encort
from encort.export.exporter import export_bundle
from tests.conftest import MakeCheckpoint
from tests.runtime.server.conftest import Connect

TEXTS = ["hello", "my card is lost"]
PAIRS = [("my card", "hello"), ("my card", "my card is lost")]


def post(connect: Connect, model: encort.Model, path: str, body: Any, **settings: Any) -> Any:
    async def send() -> Any:
        async with connect({"m": model}, **settings) as client:
            return await client.post(path, json=body)

    return asyncio.run(send())


def test_classes_equal_those_of_the_model(connect: Connect, heads: encort.Model) -> None:
    answer = post(connect, heads, "/v1/classify", {"input": TEXTS, "top_k": 2}).json()
    for item, expected in zip(answer["data"], heads.classify(TEXTS), strict=True):
        assert item["label"] == expected.label == next(iter(item["scores"]))
        assert item["score"] == pytest.approx(expected.score, rel=1e-5)
        assert len(item["scores"]) == 2
    assert answer["usage"]["total_tokens"] == sum(item.tokens for item in heads.classify(TEXTS))


def test_spans_equal_those_of_the_model(connect: Connect, heads: encort.Model) -> None:
    answer = post(connect, heads, "/v1/tag", {"model": "m", "input": TEXTS}).json()
    expected = [[(span.label, span.start, span.end, span.text) for span in spans] for spans in heads.tag(TEXTS)]
    found = [[tuple(s[n] for n in ("label", "start", "end", "text")) for s in i["spans"]] for i in answer["data"]]
    assert found == expected
    assert any(expected)


@pytest.mark.parametrize("body", [{"question": PAIRS[1][0], "context": PAIRS[1][1]}, {"pairs": [PAIRS[1]]}])
def test_answers_equal_those_of_the_model(connect: Connect, heads: encort.Model, body: Any) -> None:
    answer = post(connect, heads, "/v1/answer", {**body, "n_best": 3}).json()
    expected = [asdict(one) for one in heads.answer([PAIRS[1]], n_best=3)[0]]
    assert [one["text"] for one in answer["data"][0]["answers"]] == [one["text"] for one in expected]


def test_scores_equal_those_of_the_model(connect: Connect, heads: encort.Model) -> None:
    answer = post(connect, heads, "/v1/score", {"text_1": "my card", "text_2": TEXTS}).json()
    assert [item["score"] for item in answer["data"]] == pytest.approx(heads.score(PAIRS).tolist(), rel=1e-4)


def test_words_for_masks_equal_those_of_the_model(connect: Connect, masked_bundle: Path) -> None:
    texts = ["my [MASK] is lost", "[MASK] my [MASK]"]
    with encort.load(masked_bundle, threads=1) as model:
        answer = post(connect, model, "/v1/fill", {"input": texts, "top_k": 2}).json()
        expected = model.fill(texts, top_k=2)
    assert [len(item["masks"]) for item in answer["data"]] == [1, 2]
    found = [word["token"] for item in answer["data"] for mask in item["masks"] for word in mask["words"]]
    assert found == [word.token for masks in expected for mask in masks for word in mask.words]


def test_labels_of_the_request_are_chosen_by_inference(
    connect: Connect, make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    checkpoint = make_checkpoint(labels=["contradiction", "neutral", "entailment"], seed=7)
    body = {"input": TEXTS, "labels": ["card", "my pin"], "multi_label": True}
    with encort.load(export_bundle(checkpoint, tmp_path / "b", variants=["fp32"]).folder, threads=1) as model:
        answer = post(connect, model, "/v1/classify_zero_shot", body).json()
        expected = model.classify_zero_shot(TEXTS, ["card", "my pin"], multi_label=True)
        refused = post(connect, model, "/v1/classify_zero_shot", {**body, "template": "no place"})
    for item, result in zip(answer["data"], expected, strict=True):
        assert item["label"] == result.label == next(iter(item["scores"]))
        assert item["scores"] == pytest.approx(dict(result.scores), rel=1e-4)
    assert refused.status_code == 400
    assert "template" in refused.text


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank"])
@pytest.mark.parametrize("kind", ["heads", "encoder"])
def test_documents_have_the_order_of_rank(
    connect: Connect, request: pytest.FixtureRequest, path: str, kind: str
) -> None:
    model: encort.Model = request.getfixturevalue(kind)
    answer = post(connect, model, path, {"query": "my card", "documents": TEXTS, "top_n": 2}).json()
    expected = model.rank("my card", TEXTS)
    assert [item["index"] for item in answer["results"]] == [item.index for item in expected]
    assert [i["relevance_score"] for i in answer["results"]] == pytest.approx([i.score for i in expected], rel=1e-4)


def test_documents_are_returned_if_asked_for(connect: Connect, encoder: encort.Model) -> None:
    body = {"query": "my card", "documents": [{"text": "hello"}, "my card"], "return_documents": True}
    results = post(connect, encoder, "/v1/rerank", body).json()["results"]
    assert {item["index"]: item["document"]["text"] for item in results} == {0: "hello", 1: "my card"}


@pytest.mark.parametrize("kind", ["heads", "encoder"])
def test_documents_are_cut_at_the_tokens_that_the_client_allows(
    connect: Connect, request: pytest.FixtureRequest, kind: str
) -> None:
    model: encort.Model = request.getfixturevalue(kind)
    documents, cut = ["my card is lost", "hello", "", "lost " * 500], ["my card", "hello", "", "lost lost"]

    def scores(documents: list[str], **options: int) -> list[float]:
        body = {"query": "my card", "documents": documents, **options}
        results = post(connect, model, "/v2/rerank", body).json()["results"]
        return [item["relevance_score"] for item in sorted(results, key=lambda item: item["index"])]

    assert scores(documents, max_tokens_per_doc=2) == pytest.approx(scores(cut), rel=1e-4)
    assert scores(documents, max_tokens_per_doc=500) == pytest.approx(scores(documents), rel=1e-4)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/rerank", {"query": "a", "documents": TEXTS, "max_tokens_per_doc": 0}),
        ("/v1/classify", {"input": TEXTS}),
        ("/v1/classify", {"input": TEXTS, "top_k": 0}),
        ("/v1/tag", {"input": 3}),
        ("/v1/answer", {"question": "my card"}),
        ("/v1/answer", {"pairs": []}),
        ("/v1/score", {"text_1": TEXTS, "text_2": ["a", "b", "c"]}),
        ("/v1/score", {"text_1": [], "text_2": TEXTS}),
        ("/v1/rerank", {"query": "a", "documents": []}),
        ("/v1/rerank", {"query": "a", "documents": TEXTS, "top_n": 0}),
    ],
)
def test_bad_requests_fail_in_the_form_of_openai(connect: Connect, encoder: encort.Model, path: str, body: Any) -> None:
    answer = post(connect, encoder, path, body)
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error"), answer.text


def test_models_tell_their_tasks(connect: Connect, heads: encort.Model, encoder: encort.Model) -> None:
    async def tasks() -> list[list[str]]:
        async with connect({"h": heads, "e": encoder}) as client:
            return [item["tasks"] for item in (await client.get("/v1/models")).json()["data"]]

    of_heads, of_encoder = asyncio.run(tasks())
    assert of_encoder == ["embed", "rank"]
    assert {"classify", "score", "tag", "answer", "rank"} <= set(of_heads)


def test_labels_of_tei_are_in_descending_order(connect: Connect, heads: encort.Model) -> None:
    one = post(connect, heads, "/predict", {"inputs": TEXTS[1]}).json()
    expected = sorted(heads.classify(TEXTS)[1].scores.items(), key=lambda item: -item[1])
    assert [item["label"] for item in one] == [label for label, _ in expected]
    assert [item["score"] for item in one] == pytest.approx([score for _, score in expected], rel=1e-4)


def test_pairs_and_batches_of_tei_are_told_apart(connect: Connect, heads: encort.Model) -> None:
    pair = post(connect, heads, "/predict", {"inputs": list(PAIRS[0]), "raw_scores": True}).json()
    batch = post(connect, heads, "/predict", {"inputs": [[TEXTS[0]], list(PAIRS[0])], "raw_scores": True}).json()
    assert [item["label"] for item in batch[1]] == [item["label"] for item in pair]
    logits = heads.logits(PAIRS[:1], head="topics")[0]
    assert [item["score"] for item in pair] == pytest.approx(sorted(logits.tolist(), reverse=True), rel=1e-4)
    assert [len(row) for row in batch] == [len(pair)] * 2


@pytest.mark.parametrize("raw", [True, False])
def test_texts_are_reranked_as_by_tei(connect: Connect, heads: encort.Model, raw: bool) -> None:
    body = {"query": "my card", "texts": TEXTS, "raw_scores": raw, "return_text": True}
    answer = post(connect, heads, "/rerank", body).json()
    logits = heads.logits(PAIRS, head="stars")[:, 0]
    expected = logits if raw else 1 / (1 + np.exp(-logits))
    assert [item["index"] for item in answer] == np.argsort(-expected).tolist()
    assert [item["score"] for item in answer] == pytest.approx(np.sort(expected)[::-1].tolist(), rel=1e-4)
    assert [item["text"] for item in answer] == [TEXTS[item["index"]] for item in answer]


def test_similarities_are_cosines(connect: Connect, encoder: encort.Model) -> None:
    body = {"inputs": {"source_sentence": "my card", "sentences": TEXTS}}
    answer = post(connect, encoder, "/similarity", body).json()
    expected = encoder.similarity(encoder.embed(["my card"]), encoder.embed(TEXTS))[0]
    assert answer == pytest.approx(expected.tolist(), abs=1e-5)


def test_a_bundle_without_the_task_fails_as_with_tei(connect: Connect, encoder: encort.Model) -> None:
    answer = post(connect, encoder, "/rerank", {"query": "a", "texts": ["b"]})
    assert (answer.status_code, answer.json()["error_type"]) == (424, "Backend")


@pytest.mark.parametrize("inputs", [[["a", "b", "c"]], [[]], ["a", ["b"]], ["a", "b", "c"]])
def test_other_inputs_of_tei_are_refused(connect: Connect, heads: encort.Model, inputs: Any) -> None:
    assert post(connect, heads, "/predict", {"inputs": inputs}).status_code == 422
