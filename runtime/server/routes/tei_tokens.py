"""The routes of text-embeddings-inference that only use the tokenizer."""

import asyncio
from itertools import pairwise
from typing import Any, TypedDict

import msgspec

from encort.runtime.model import Model
from encort.runtime.server.embeddings import TokenBudget, as_texts, check_count
from encort.runtime.server.endpoints import Endpoint, Reply, Server
from encort.runtime.server.errors import TEI, Failure, RequestError
from encort.runtime.server.models import ServedModel
from encort.runtime.text.token_batch import TokenBatch
from encort.runtime.text.token_prompt import TokenPrompt
from encort.runtime.text.windows import merge_windows


class TokenizeRequest(msgspec.Struct, kw_only=True):
    """Body of `/tokenize`."""

    inputs: str | list[str]
    add_special_tokens: bool = True
    prompt_name: str | None = None


class Token(TypedDict):
    """A token: its part of the text, prompt included, and the offsets of that part; none for a special token."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


class DecodeRequest(msgspec.Struct, kw_only=True):
    """Body of `/decode`: the token ids of one text, or of several."""

    ids: list[int | list[int]]
    skip_special_tokens: bool = True


async def tokenize(server: Server, body: TokenizeRequest) -> Reply:
    """Return all tokens of each text, also those over the limit of the model."""
    served = server.models.get()
    texts = as_texts(body.inputs, most=server.settings.max_items)
    return Reply(content=await asyncio.to_thread(_tokenize, served, texts, body))


async def decode(server: Server, body: DecodeRequest) -> Reply:
    """Return the text of each list of token ids."""
    model = server.models.get().model
    rows: list[Any] = [body.ids] if all(isinstance(item, int) for item in body.ids) else body.ids
    if not all(isinstance(row, list) and row for row in rows):
        raise RequestError(Failure.INVALID, "expected the token ids of one text, or a list of them for each text")
    check_count(len(rows), most=server.settings.max_items)
    texts = await asyncio.to_thread(
        lambda: [model.decode(row, skip_special_tokens=body.skip_special_tokens) for row in rows]
    )
    return Reply(content=texts)


def _tokenize(served: ServedModel, texts: list[Any], body: TokenizeRequest) -> list[list[Token]]:
    model = served.model
    is_text = not isinstance(model.manifest.prompts.resolve(body.prompt_name), TokenPrompt)
    batch = model.tokenize(
        texts,
        # Windows have all tokens of a text. Token prompts have no windows.
        overflow="window" if is_text else "truncate",
        stride=0,
        prompt=body.prompt_name,
        return_offsets=True,
    )
    whole, _ = merge_windows(batch, [], tokenwise=True)
    TokenBudget(served.max_tokens).spend(whole)
    tokens = _tokens(model, whole)
    bounds = whole.cu_seqlens.tolist()
    rows = [tokens[start:end] for start, end in pairwise(bounds)]
    return rows if body.add_special_tokens else [[token for token in row if not token["special"]] for row in rows]


def _tokens(model: Model, batch: TokenBatch) -> list[Token]:
    """Return the tokens of all texts, one after the other."""
    assert batch.offsets is not None, "they were asked for"
    texts = [text for text, length in zip(batch.texts, batch.lengths, strict=True) for _ in range(length)]
    columns = (batch.ids, batch.offsets.starts, batch.offsets.ends, batch.offsets.sequences)
    names = model.tokens(batch.ids)
    return [
        Token(id=number, text=name, special=True, start=None, stop=None)
        if part < 0
        else Token(id=number, text=str(text[start:end]), special=False, start=start, stop=end)
        for number, start, end, part, text, name in zip(*(c.tolist() for c in columns), texts, names, strict=True)
    ]


ENDPOINTS = [
    Endpoint(
        paths=("/tokenize",),
        summary="Tokens of texts",
        contract=TEI,
        handler=tokenize,
        body=TokenizeRequest,
        result=list[list[Token]],
    ),
    Endpoint(
        paths=("/decode",),
        summary="Texts of token ids",
        contract=TEI,
        handler=decode,
        body=DecodeRequest,
        result=list[str],
    ),
]
