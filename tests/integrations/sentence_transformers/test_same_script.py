"""One script, two imports: every call returns what sentence-transformers returns, in type, dtype, shape and value."""

import inspect
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sentence_transformers", minversion="6.0")

import datasets
import sentence_transformers
import torch

from encort.integrations import sentence_transformers as drop_in
from tests.integrations.sentence_transformers.comparison import assert_same
from tests.integrations.sentence_transformers.conftest import Both

TEXTS = ["my card is lost", "", "hello", "change the pin " * 30, "hello", " 안녕하세요 ", "play\tplaying"]
MANY = [f"card {number} is {'lost ' * (number % 7)}" for number in range(120)]
Call = Callable[[Any], Any]

ENCODE: dict[str, Call] = {
    "one text": lambda m: m.encode("my card is lost"),
    "a list": lambda m: m.encode(TEXTS),
    "a tuple": lambda m: m.encode(tuple(TEXTS)),
    "an array of str": lambda m: m.encode(np.array(TEXTS)),
    "an array of objects": lambda m: m.encode(np.array(TEXTS, dtype=object)),
    "a list of numpy's str": lambda m: m.encode(list(np.array(TEXTS))),
    "a column of datasets": lambda m: m.encode(datasets.Dataset.from_dict({"text": TEXTS})["text"]),
    "a list of one": lambda m: m.encode(["hello"]),
    "no text": lambda m: m.encode([]),
    "no text, as a tensor": lambda m: m.encode([], convert_to_tensor=True),
    "no text, as a list": lambda m: m.encode([], convert_to_numpy=False),
    "no text, with a progress bar": lambda m: m.encode([], show_progress_bar=True),
    "no text, normalized": lambda m: m.encode([], normalize_embeddings=True, truncate_dim=8),
    "no text, as bits": lambda m: m.encode([], precision="binary"),
    "no text, as bytes": lambda m: m.encode([], precision="int8"),
    "tokens of no text": lambda m: m.encode([], output_value="token_embeddings"),
    "all outputs of no text": lambda m: m.encode([], output_value=None),
    "pairs": lambda m: m.encode([("hello", "my pin"), ["the card", ""]]),
    "the older name": lambda m: m.encode(sentences=TEXTS),
    "a tensor": lambda m: m.encode(TEXTS, convert_to_tensor=True),
    "a tensor of one text": lambda m: m.encode("hello", convert_to_tensor=True),
    "a list of tensors": lambda m: m.encode(TEXTS, convert_to_numpy=False),
    "a tensor of one text, not an array": lambda m: m.encode("hello", convert_to_numpy=False),
    "normalized": lambda m: m.encode(TEXTS, normalize_embeddings=True),
    "truncated": lambda m: m.encode(TEXTS, truncate_dim=16),
    "truncated and normalized": lambda m: m.encode(TEXTS, truncate_dim=16, normalize_embeddings=True),
    "truncated to more than all": lambda m: m.encode(TEXTS, truncate_dim=4096),
    "a small batch": lambda m: m.encode(TEXTS, batch_size=2),
    "no progress bar": lambda m: m.encode(TEXTS, show_progress_bar=False),
    "a progress bar": lambda m: m.encode(MANY, show_progress_bar=True),
    "a prompt": lambda m: m.encode(TEXTS, prompt="hello "),
    "an empty prompt": lambda m: m.encode(TEXTS, prompt=""),
    "a named prompt": lambda m: m.encode(TEXTS, prompt_name="query"),
    "a prompt before a name": lambda m: m.encode(TEXTS, prompt_name="query", prompt="hello "),
    "by position": lambda m: m.encode(TEXTS, "query", None, 4, False),
    "a query": lambda m: m.encode_query("hello"),
    "queries by position": lambda m: m.encode_query(TEXTS, None, "hello ", 4, False),
    "queries by the older name": lambda m: m.encode_query(sentences=TEXTS),
    "queries": lambda m: m.encode_query(TEXTS, convert_to_tensor=True),
    "a query with a prompt": lambda m: m.encode_query(TEXTS, prompt="hello "),
    "documents": lambda m: m.encode_document(TEXTS),
    "documents with another prompt": lambda m: m.encode_document(TEXTS, prompt_name="query"),
    "bits": lambda m: m.encode(MANY, precision="binary"),
    "bits of one text": lambda m: m.encode("hello", precision="ubinary"),
    "bits as a tensor": lambda m: m.encode(MANY, precision="ubinary", convert_to_tensor=True),
    "bits as a list": lambda m: m.encode(TEXTS, precision="binary", convert_to_numpy=False),
    "no precision": lambda m: m.encode(TEXTS, precision=None),
    "the device": lambda m: m.encode(TEXTS, device="cpu"),
    "tokens": lambda m: m.encode(TEXTS, output_value="token_embeddings"),
    "tokens of one text": lambda m: m.encode("hello", output_value="token_embeddings"),
    "tokens with a prompt": lambda m: m.encode(TEXTS, prompt="my ", output_value="token_embeddings"),
}


@pytest.mark.parametrize("call", ENCODE.values(), ids=ENCODE)
def test_encode(both: Both, call: Call) -> None:
    assert_same(call(both.ours), call(both.theirs))


@pytest.mark.parametrize("precision", ["int8", "uint8"])
def test_bytes_are_at_most_one_step_away(both: Both, precision: str) -> None:
    found, expected = (model.encode(MANY, precision=precision) for model in (both.ours, both.theirs))
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    steps = np.abs(found.astype(int) - expected.astype(int))
    assert steps.max() <= 1
    assert (steps > 0).mean() < 0.05  # many values are on the border of two steps: those of the ranges


def test_all_outputs_of_a_text_are_theirs_without_padding(both: Both) -> None:
    names = ("input_ids", "attention_mask", "token_embeddings", "sentence_embedding")
    found, expected = (model.encode(TEXTS, output_value=None) for model in (both.ours, both.theirs))
    for one, other in zip(found, expected, strict=True):
        is_token = other["attention_mask"].bool()
        other = other | {name: other[name][is_token] for name in names[:3]}  # noqa: PLW2901
        assert_same({name: one[name] for name in names}, {name: other[name] for name in names})


MODEL: dict[str, Call] = {
    "dimension": lambda m: m.get_embedding_dimension(),
    "older name of the dimension": lambda m: m.get_sentence_embedding_dimension(),
    "truncate_dim": lambda m: m.truncate_dim,
    "max_seq_length": lambda m: (m.max_seq_length, m.get_max_seq_length()),
    "similarity_fn_name": lambda m: m.similarity_fn_name,
    "prompts": lambda m: m.prompts,
    "default_prompt_name": lambda m: m.default_prompt_name,
    "device": lambda m: m.device,
    "kinds of input": lambda m: (m.modalities, m.supports("text"), m.supports("image"), m.get_model_kwargs()),
    "eval and to": lambda m: m.eval().to("cpu").cpu() is m,
    "tokenizer": lambda m: m.tokenizer(TEXTS)["input_ids"],
    "similarity": lambda m: m.similarity(m.encode(TEXTS), m.encode(MANY)),
    "similarity of one": lambda m: m.similarity(m.encode("hello"), m.encode(TEXTS, convert_to_tensor=True)),
    "similarity of lists": lambda m: m.similarity(list(m.encode(TEXTS)), m.encode(TEXTS, convert_to_numpy=False)),
    "pairwise": lambda m: m.similarity_pairwise(m.encode(TEXTS), m.encode(TEXTS[::-1])),
}


@pytest.mark.parametrize("call", MODEL.values(), ids=MODEL)
@pytest.mark.filterwarnings("ignore:The `get_sentence_embedding_dimension`")
def test_attributes(both: Both, call: Call) -> None:
    # torch takes a distance from the lengths of both vectors, which costs half of the digits.
    assert_same(call(both.ours), call(both.theirs), tolerance=1e-3)


@pytest.mark.parametrize("name", ["cosine", "dot", "euclidean", "manhattan"])
def test_every_similarity(both: Both, name: str) -> None:
    def script(model: Any) -> Any:
        before, model.similarity_fn_name = model.similarity_fn_name, name
        first, second = model.encode(TEXTS[:4]), model.encode(TEXTS[3:])
        results = model.similarity_fn_name, model.similarity(first, second), model.similarity_pairwise(first, second)
        model.similarity_fn_name = before
        return results

    assert_same(script(both.ours), script(both.theirs), tolerance=1e-4)


def test_the_settings_of_a_model_can_be_changed(both: Both) -> None:
    def script(model: Any) -> Any:
        with model.truncate_embeddings(8):
            results = [model.encode(TEXTS), model.get_embedding_dimension()]
        limit, model.max_seq_length = model.max_seq_length, 7
        results += [model.encode(TEXTS), model.max_seq_length, model.preprocess(TEXTS)["input_ids"].shape]
        model.max_seq_length = limit
        prompts = dict(model.prompts)
        model.prompts["mine"] = "change "
        results += [model.encode(TEXTS, prompt_name="mine"), model.encode(TEXTS), model.get_embedding_dimension()]
        model.prompts = {"passage": "my ", "corpus": "pin "}
        results += [model.encode_document(TEXTS), model.encode_query(TEXTS, prompt="")]
        model.prompts = prompts
        return results

    assert_same(script(both.ours), script(both.theirs))


@pytest.mark.parametrize(
    "settings",
    [
        {"truncate_dim": 12},
        {"prompts": {"query": "my ", "other": "pin "}, "default_prompt_name": "other"},
        {"prompts": {"query": "", "document": "", "passage": ""}},
        {"similarity_fn_name": "manhattan"},
    ],
    ids=str,
)
def test_the_settings_of_a_constructor(both: Both, settings: dict[str, Any]) -> None:
    def script(model: Any) -> Any:
        embeddings = model.encode(TEXTS), model.encode_query(TEXTS), model.encode_document(TEXTS)
        return [*embeddings, model.similarity(*embeddings[:2]), model.prompts, model.truncate_dim]

    ours = type(both.ours)(both.bundle, device="cpu", **settings)
    theirs = type(both.theirs)(str(both.folder), device="cpu", **settings)
    assert_same(script(ours), script(theirs), tolerance=1e-4)


def test_a_pool_gives_the_same_embeddings(both: Both) -> None:
    pool = both.ours.start_multi_process_pool(["cpu", "cpu"])
    found = both.ours.encode(MANY, pool=pool), both.ours.encode_multi_process(MANY, pool)
    both.ours.stop_multi_process_pool(pool)
    for embeddings in (*found, both.ours.encode(MANY, device=["cpu", "cpu"], chunk_size=8)):
        assert_same(embeddings, both.theirs.encode(MANY))


def test_other_libraries_take_it_for_a_model_of_sentence_transformers(both: Both) -> None:
    assert isinstance(both.ours, type(both.theirs))
    assert isinstance(both.ours, type(both.ours))
    assert not isinstance(both.theirs, type(both.ours))
    restored = pickle.loads(pickle.dumps(both.ours))
    assert type(restored) is type(both.ours)
    assert_same(restored.encode(TEXTS), both.ours.encode(TEXTS))


def test_an_evaluator_of_sentence_transformers(both: Both) -> None:
    from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator

    evaluator = EmbeddingSimilarityEvaluator(MANY[:40], MANY[40:80], [number / 40 for number in range(40)])
    # Two cosines that differ by less than the tolerance may change places.
    assert_same(both.ours.evaluate(evaluator), both.theirs.evaluate(evaluator), tolerance=5e-3)


ERRORS: dict[str, Call] = {
    "an unknown prompt": lambda m: m.encode(TEXTS, prompt_name="no such"),
    "an unknown precision": lambda m: m.encode(TEXTS, precision="int4"),
    "a batch of none": lambda m: m.encode(TEXTS, batch_size=0),
    "an unknown option": lambda m: m.encode(TEXTS, convert_to_arrow=True),
    "ranges of one embedding": lambda m: m.encode("hello", precision="int8"),
    "an unknown similarity": lambda m: setattr(m, "similarity_fn_name", "jaccard"),
}


@pytest.mark.parametrize("call", ERRORS.values(), ids=ERRORS)
def test_their_errors_are_errors(both: Both, call: Call) -> None:
    for model in (both.theirs, both.ours):
        with pytest.raises(ValueError, match=r"\w"):
            call(model)


METHODS = {
    "SentenceTransformer": [
        *("encode", "encode_multi_process", "similarity", "similarity_pairwise", "truncate_embeddings", "evaluate"),
        *("start_multi_process_pool", "stop_multi_process_pool"),
    ],
    "CrossEncoder": ["predict", "rank", "evaluate"],
}


@pytest.mark.parametrize(("kind", "method"), [(kind, method) for kind, names in METHODS.items() for method in names])
def test_arguments_have_their_names_order_and_defaults(kind: str, method: str) -> None:
    def arguments(library: Any) -> list[tuple[str, Any, Any]]:
        parameters = inspect.signature(getattr(getattr(library, kind), method)).parameters.values()
        return [(one.name, one.kind, one.default) for one in parameters if one.kind is not one.VAR_KEYWORD]

    assert arguments(drop_in) == arguments(sentence_transformers)


PAIRS = [("my card is lost", "hello"), ("hello", "my pin"), ("", "card " * 80), ("hello", "my pin")]
PREDICT: dict[str, Call] = {
    "one pair": lambda m: m.predict(("hello", "my pin")),
    "one pair as a list": lambda m: m.predict(["hello", "my pin"]),
    "one pair as an array": lambda m: m.predict(np.array(["hello", "my pin"])),
    "pairs": lambda m: m.predict(PAIRS),
    "pairs as lists": lambda m: m.predict([list(pair) for pair in PAIRS]),
    "pairs as an array": lambda m: m.predict(np.array(PAIRS)),
    "no pair": lambda m: m.predict([]),
    "no pair, with a progress bar": lambda m: m.predict([], show_progress_bar=True),
    "no pair, as probabilities": lambda m: m.predict([], apply_softmax=True, activation_fn=torch.nn.Tanh()),
    "no pair, as a tensor": lambda m: m.predict([], convert_to_tensor=True),
    "no pair, as a list": lambda m: m.predict([], convert_to_numpy=False),
    "the older names": lambda m: m.predict(sentences=PAIRS, activation_fct=torch.nn.Tanh(), num_workers=2),
    "by position": lambda m: m.predict(PAIRS, None, "my ", 4, False, torch.nn.Tanh(), True),
    "a tensor": lambda m: m.predict(PAIRS, convert_to_tensor=True),
    "a tensor of one": lambda m: m.predict(PAIRS[0], convert_to_tensor=True),
    "a list": lambda m: m.predict(PAIRS, convert_to_numpy=False),
    "an activation": lambda m: m.predict(PAIRS, activation_fn=torch.nn.Sigmoid()),
    "the logits": lambda m: m.predict(PAIRS, activation_fn=torch.nn.Identity()),
    "probabilities": lambda m: m.predict(PAIRS, apply_softmax=True),
    "probabilities of logits": lambda m: m.predict(PAIRS, activation_fn=torch.nn.Identity(), apply_softmax=True),
    "a prompt": lambda m: m.predict(PAIRS, prompt="my "),
    "a small batch": lambda m: m.predict(PAIRS, batch_size=1, show_progress_bar=True),
    "num_labels": lambda m: m.num_labels,
    "limit": lambda m: m.max_seq_length,
    "activation_fn": lambda m: str(m.activation_fn),
    "pool": lambda m: m.predict(PAIRS, device="cpu"),
}


@pytest.mark.parametrize("call", PREDICT.values(), ids=PREDICT)
def test_predict(both_cross: Both, call: Call) -> None:
    assert_same(call(both_cross.ours), call(both_cross.theirs), tolerance=1e-4)


RANK: dict[str, Call] = {
    "all": lambda m: m.rank("my card", ["hello", "the pin", "the card is lost", "hello"]),
    "the best": lambda m: m.rank("my card", ["hello", "the pin", "the card is lost"], top_k=2, return_documents=True),
    "none": lambda m: m.rank("my card", []),
    "none, with a progress bar": lambda m: m.rank("my card", [], show_progress_bar=True),
    "by position": lambda m: m.rank("card", ["hello", "pin"], None, True, None, "my ", 4, False, torch.nn.Tanh()),
    "older options": lambda m: m.rank(
        "card",
        ["hello", "pin"],
        num_workers=2,
        activation_fct=torch.nn.Tanh(),
        apply_softmax=True,
        convert_to_numpy=False,
        convert_to_tensor=True,
    ),
    "options": lambda m: m.rank("card", ["hello", "pin"], prompt="my ", activation_fn=torch.nn.Tanh()),
}


@pytest.mark.parametrize("call", RANK.values(), ids=RANK)
def test_rank(both_cross: Both, call: Call) -> None:
    if both_cross.theirs.num_labels == 1:
        assert_same(call(both_cross.ours), call(both_cross.theirs), tolerance=1e-4)
    else:
        for model in (both_cross.ours, both_cross.theirs):
            with pytest.raises(ValueError, match="num_labels"):
                call(model)


def test_the_settings_of_a_cross_encoder(both_cross: Both) -> None:
    def script(model: Any) -> Any:
        results = [model.predict(PAIRS), model.max_seq_length, str(model.activation_fn)]
        model.activation_fn = torch.nn.Identity()
        return [*results, model.predict(PAIRS)]

    settings: dict[str, Any] = {"device": "cpu", "max_length": 9, "activation_fn": torch.nn.Tanh()}
    ours = type(both_cross.ours)(both_cross.bundle, **settings)
    theirs = type(both_cross.theirs)(str(both_cross.folder), **settings)
    assert_same(script(ours), script(theirs), tolerance=1e-4)


def test_a_cross_encoder_passes_for_one_of_sentence_transformers(both_cross: Both) -> None:
    assert isinstance(both_cross.ours, type(both_cross.theirs))
    restored = pickle.loads(pickle.dumps(both_cross.ours))
    assert_same(restored.predict(PAIRS), both_cross.ours.predict(PAIRS))
