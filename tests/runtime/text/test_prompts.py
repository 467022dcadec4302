"""Prompts are found by their names and put before texts, and no window of a long text lacks them."""

from typing import Any

import numpy as np
import pytest

from encort.runtime.common.errors import InputError, InputTooLongError, InputTypeError
from encort.runtime.text.prompts import DOCUMENT_NAMES, QUERY_NAMES, Prompt, Prompts
from encort.runtime.text.token_batch import TokenBatch, pad_rows
from encort.runtime.text.tokenizer import Tokenizer
from tests.builders import save_tokenizer

LIMIT = 16
PROMPTS = Prompts({"query": "find: ", "passage": "read: "}, default="query")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder)
    return Tokenizer((folder / "tokenizer.json").read_bytes(), max_length=LIMIT)


def rows(batch: TokenBatch) -> list[list[int]]:
    return [part.tolist() for part in np.split(batch.ids, batch.cu_seqlens[1:-1])]


@pytest.mark.parametrize(
    ("prompt", "text"),
    [(None, "find: "), ("query", "find: "), ("passage", "read: "), ("", ""), (Prompt("as it is"), "as it is")],
)
def test_a_prompt_is_a_name_or_a_text_or_the_default(prompt: Any, text: str) -> None:
    assert PROMPTS.resolve(prompt) == text


def test_without_a_default_there_is_no_prompt() -> None:
    assert Prompts({"query": "find: "}).resolve(None) == ""
    assert Prompts().resolve(None) == ""


@pytest.mark.parametrize(("prompts", "have"), [(PROMPTS, "'query', 'passage'"), (Prompts(), "none")])
def test_an_unknown_name_is_an_error_that_lists_the_names(prompts: Prompts, have: str) -> None:
    with pytest.raises(InputError, match=rf"no prompt 'querry'; this bundle has: {have}\."):
        prompts.resolve("querry")


@pytest.mark.parametrize("prompt", [3, ["query"], Prompts()])
def test_a_prompt_of_another_type_is_an_error(prompt: Any) -> None:
    with pytest.raises(InputTypeError, match="prompt must be"):
        PROMPTS.resolve(prompt)


def test_a_literal_prompt_is_unicode_text() -> None:
    with pytest.raises(InputTypeError, match="must be a str"):
        Prompt(3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="surrogate"):
        Prompt("\ud800")


def test_documents_take_the_first_name_that_the_bundle_has_and_never_the_default() -> None:
    assert PROMPTS.choose(DOCUMENT_NAMES) == "passage"
    assert PROMPTS.choose(QUERY_NAMES) == "query"
    assert Prompts({"other": "x"}, default="other").choose(QUERY_NAMES) == ""


def test_a_prompt_is_put_before_a_text_before_it_is_tokenized(tokenizer: Tokenizer) -> None:
    # The prompt ends inside a word, so that its tokens alone would be others.
    assert rows(tokenizer(["ing my card"], prompt="play")) == rows(tokenizer(["playing my card"]))
    assert rows(tokenizer(["ing my card"], prompt="play")) != rows(tokenizer(["play ing my card"]))


def test_a_pair_has_the_prompt_before_its_first_text(tokenizer: Tokenizer) -> None:
    batch = tokenizer([("card", "lost")], prompt="my ")
    assert rows(batch) == rows(tokenizer([("my card", "lost")]))
    assert list(batch.texts) == [("my card", "lost")]
    assert batch.prompt == "my "


def test_token_ids_with_a_prompt_are_an_error(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="prompt 'my ' cannot be put before token ids"):
        tokenizer([[2, 7, 3]], prompt="my ")


def test_the_length_of_a_prompt_is_that_of_the_prompt_alone(tokenizer: Tokenizer) -> None:
    def length(prompt: str) -> int | None:
        return tokenizer(["lost"], prompt=prompt, return_prompt_length=True).prompt_length

    assert length("my card ") == 3  # [CLS] and two words
    assert length("") == 0
    assert tokenizer([[2, 7, 3]], return_prompt_length=True).prompt_length == 0
    assert tokenizer(["lost"], prompt="my card ").prompt_length is None


def test_the_length_of_a_prompt_is_an_input_of_the_graph(tokenizer: Tokenizer) -> None:
    first = tokenizer(["lost", "hello my card"], prompt="my ", return_prompt_length=True)
    second = tokenizer(["pin"], return_prompt_length=True)
    inputs = pad_rows([first.rows(np.array([0])), first.rows(np.array([1])), second.rows(np.array([0]))])
    assert inputs["prompt_length"].tolist() == [2, 2, 0]
    assert inputs["input_ids"].shape == (3, 6)
    assert "prompt_length" not in tokenizer(["lost"], prompt="my ").rows(np.array([0]))


def test_every_window_begins_with_the_prompt(tokenizer: Tokenizer) -> None:
    text = " ".join(f"{'pin' if number % 3 else 'lost'}" for number in range(40))
    batch = tokenizer([text], prompt="my card ", overflow="window", stride=2)
    beginning, end = rows(tokenizer(["my card"]))[0][:3], rows(tokenizer(["my card"]))[0][-1]
    windows = rows(batch)
    assert len(windows) > 2
    assert all(window[:3] == beginning and window[-1] == end and len(window) <= LIMIT for window in windows)
    assert batch.windows is not None
    whole = [
        token
        for window, own in zip(windows, np.split(batch.windows.own, batch.cu_seqlens[1:-1]), strict=True)
        for token, counts in zip(window, own, strict=True)
        if counts
    ]
    long = Tokenizer(_content(tokenizer), max_length=1000)
    assert whole == rows(long(["my card " + text]))[0]


def test_a_prompt_that_leaves_no_room_for_windows_is_an_error(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputTooLongError, match="or the prompt"):
        tokenizer(["pin " * 40], prompt="my " * 20, overflow="window")


def _content(tokenizer: Tokenizer) -> bytes:
    return str(tokenizer._backend.library.to_str()).encode()
