"""The Open Inference Protocol, by hand and with the client of Triton."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import encort
from tests.runtime.server.conftest import Connect
from tests.runtime.server.server_process import started

TEXTS = ["hello", "my card is lost, 안녕"]
PAIRS = [("my card", "hello"), ("my card", "my card is lost")]


@pytest.fixture(scope="module")
def triton(encoder_bundle: Path, multi_head: Path) -> Iterator[Any]:
    """The client of Triton, with a server of two models."""
    client = pytest.importorskip("tritonclient.http")
    with (
        started(encoder_bundle, multi_head) as (_, address),
        client.InferenceServerClient(address.removeprefix("http://")) as connected,
    ):
        yield connected


def call(connect: Connect, model: encort.Model, path: str, body: Any = None, **options: Any) -> Any:
    async def send() -> Any:
        async with connect({"org/m": model}) as client:
            if body is None:
                return await client.get(path)
            content = {"content": body} if isinstance(body, bytes) else {"json": body}
            return await client.post(path, **content, **options)

    return asyncio.run(send())


def tensor(texts: list[str], name: str = "text", **fields: Any) -> dict[str, Any]:
    return {"name": name, "shape": [len(texts)], "datatype": "BYTES", "data": texts, **fields}


def triton_input(texts: list[str], name: str = "text", *, binary: bool = True) -> Any:
    from tritonclient.http import InferInput

    given = InferInput(name, [len(texts), 1], "BYTES")
    return given.set_data_from_numpy(np.array(texts, np.object_).reshape(-1, 1), binary_data=binary)


@pytest.mark.parametrize("binary", [True, False])
def test_triton_gets_the_embeddings_of_the_model(triton: Any, encoder: encort.Model, binary: bool) -> None:
    from tritonclient.http import InferRequestedOutput

    outputs = None if binary else [InferRequestedOutput("embedding", binary_data=False)]
    answer = triton.infer("m", [triton_input(TEXTS, binary=binary)], outputs=outputs, request_id="7")
    np.testing.assert_allclose(answer.as_numpy("embedding"), encoder.embed(TEXTS), rtol=1e-5, atol=1e-6)
    assert answer.get_response()["id"] == "7"
    assert ("data" in answer.get_output("embedding")) != binary


def test_triton_gets_labels_and_spans(triton: Any, heads: encort.Model) -> None:
    from tritonclient.http import InferRequestedOutput

    outputs = [InferRequestedOutput(name) for name in ("label", "scores", "spans")]
    answer = triton.infer("m1", [triton_input(TEXTS)], outputs=outputs)
    classes = heads.classify(TEXTS)
    assert [label.decode() for label in answer.as_numpy("label")] == [item.label for item in classes]
    np.testing.assert_allclose(answer.as_numpy("scores"), [[*item.scores.values()] for item in classes], rtol=1e-4)
    spans = [json.loads(text) for text in answer.as_numpy("spans")]
    assert [[one["text"] for one in row] for row in spans] == [[one.text for one in row] for row in heads.tag(TEXTS)]


def test_triton_gets_scores_and_answers_of_pairs(triton: Any, heads: encort.Model) -> None:
    from tritonclient.http import InferRequestedOutput

    first, second = map(list, zip(*PAIRS, strict=True))
    inputs = [triton_input(first), triton_input(second, "text_pair", binary=False)]
    answer = triton.infer("m1", inputs, outputs=[InferRequestedOutput(name) for name in ("score", "answers")])
    np.testing.assert_allclose(answer.as_numpy("score"), heads.score(PAIRS), rtol=1e-4)
    found = [[one["text"] for one in json.loads(text)] for text in answer.as_numpy("answers")]
    assert found == [[one.text for one in answers] for answers in heads.answer(PAIRS)]


@pytest.mark.parametrize("is_pairs", [False, True])
def test_triton_gets_all_outputs_without_naming_them(triton: Any, heads: encort.Model, is_pairs: bool) -> None:
    first, second = map(list, zip(*PAIRS, strict=True))
    inputs = [triton_input(first), triton_input(second, "text_pair")]
    answer = triton.infer("m1", inputs if is_pairs else inputs[:1])
    names = [item["name"] for item in answer.get_response()["outputs"]]
    assert names == ["label", "scores", "score", "answers" if is_pairs else "spans", "embedding"]
    embeddings = heads.embed(PAIRS if is_pairs else first)
    np.testing.assert_allclose(answer.as_numpy("embedding"), embeddings, rtol=1e-4, atol=1e-6)


def test_answers_of_single_texts_are_refused(connect: Connect, heads: encort.Model) -> None:
    body = {"inputs": [tensor(TEXTS)], "outputs": [{"name": "answers"}]}
    answer = call(connect, heads, "/v2/models/org/m/infer", body)
    assert answer.status_code == 400
    assert "pair of question and context" in answer.json()["error"]


def test_triton_finds_server_and_models_ready(triton: Any) -> None:
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("m1")
    assert not triton.is_model_ready("x")
    assert triton.get_server_metadata()["extensions"] == ["binary_tensor_data"]


def test_metadata_name_the_tensors(triton: Any, encoder: encort.Model) -> None:
    described = triton.get_model_metadata("m")
    assert [item["name"] for item in described["inputs"]] == ["text", "text_pair"]
    assert described["outputs"] == [{"name": "embedding", "datatype": "FP32", "shape": [-1, encoder.dimension]}]
    names = [item["name"] for item in triton.get_model_metadata("m1")["outputs"]]
    assert names == ["label", "scores", "score", "spans", "answers", "embedding"]


def test_triton_raises_its_own_error(triton: Any) -> None:
    from tritonclient.utils import InferenceServerException

    with pytest.raises(InferenceServerException, match="no model 'x'"):
        triton.infer("x", [triton_input(TEXTS)])


def test_names_may_have_slashes(connect: Connect, encoder: encort.Model) -> None:
    assert call(connect, encoder, "/v2/models/org/m").json()["name"] == "org/m"
    assert call(connect, encoder, "/v2/models/org/m/ready").json()["ready"]
    body = {"inputs": [tensor([], data=[[text] for text in TEXTS], shape=[2, 1])]}
    answer = call(connect, encoder, "/v2/models/org/m/infer", body)
    assert answer.json()["outputs"][0]["shape"] == [2, encoder.dimension]


LONG = {"inference-header-content-length": "9999"}
BINARY = tensor([], data=None, parameters={"binary_data_size": 4})


@pytest.mark.parametrize(
    ("body", "options", "message"),
    [
        ({"inputs": [tensor(["a"], name="x")]}, {}, "expected the input 'text'"),
        ({"inputs": []}, {}, "got none"),
        ({"inputs": [tensor(["a"], shape=[2])]}, {}, "do not fit its shape"),
        ({"inputs": [tensor(["a"], shape=[-1])]}, {}, "do not fit its shape"),
        ({"inputs": [tensor([], data=None)]}, {}, "needs data"),
        ({"inputs": [tensor(["a"], data=[1])]}, {}, "needs data"),
        ({"inputs": [tensor(["a"], datatype="FP32")]}, {}, "does not fit"),
        ({"inputs": [tensor(["a"]), tensor(["b", "c"], name="text_pair")]}, {}, "'text_pair' has 2"),
        ({"inputs": [tensor(["a"])], "outputs": [{"name": "x"}]}, {}, "no output 'x'"),
        ({"inputs": [tensor(["a"])], "parameters": {"prompt_name": 1}}, {}, "prompt"),
        ({"inputs": [BINARY]}, {}, "0 bytes are left"),
        ({"inputs": [tensor(["a"])]}, {"headers": LONG}, "inference-header-content-length"),
        (b'{"inputs": [{"name":"text","shape":[1],"datatype":"BYTES","data":' + b"[" * 10**5, {}, "nested"),
    ],
)
def test_bad_requests_fail_in_the_form_of_the_protocol(
    connect: Connect, encoder: encort.Model, body: Any, options: Any, message: str
) -> None:
    answer = call(connect, encoder, "/v2/models/org/m/infer", body, **options)
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]
    assert message in answer.json()["error"]


@pytest.mark.parametrize(
    ("size", "tail", "message"),
    [
        (4, b"\x05\0\0\0", "end within a text"),
        (2, b"\x05\0", "end within a text"),
        (5, b"\x01\0\0\0\xff", "not UTF-8"),
        (5, b"\x01\0\0\0ab", "1 bytes are left"),
        (9, b"\x01\0\0\0a", "5 bytes are left"),
    ],
)
def test_bad_binary_texts_are_refused(
    connect: Connect, encoder: encort.Model, size: int, tail: bytes, message: str
) -> None:
    head = json.dumps({"inputs": [tensor([], data=None, shape=[1], parameters={"binary_data_size": size})]}).encode()
    headers = {"inference-header-content-length": str(len(head))}
    answer = call(connect, encoder, "/v2/models/org/m/infer", head + tail, headers=headers)
    assert answer.status_code == 400
    assert message in answer.json()["error"]


def test_unknown_models_and_routes_fail_in_the_form_of_the_protocol(connect: Connect, encoder: encort.Model) -> None:
    for path in ("/v2/models/x", "/v2/models/x/ready", "/v2/x"):
        answer = call(connect, encoder, path)
        assert (answer.status_code, list(answer.json())) == (404, ["error"])
