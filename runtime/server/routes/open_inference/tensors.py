"""Tensors of requests and responses: in JSON, or as bytes behind the JSON (the binary tensor data extension)."""

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import orjson
from numpy.typing import NDArray
from starlette.requests import Request

from encort.runtime.server.endpoints import Reply
from encort.runtime.server.errors import Failure, RequestError

LENGTH_HEADER = "inference-header-content-length"
"""Header with the bytes of the JSON, if binary tensors follow it."""
BINARY_SIZE = "binary_data_size"
"""Parameter of a tensor with its bytes behind the JSON."""
_LENGTH = struct.Struct("<I")
"""Length of a text before its UTF-8."""


class InputTensor(msgspec.Struct, kw_only=True):
    """A tensor of texts."""

    name: str
    shape: list[int]
    datatype: Literal["BYTES"]
    data: list[Any] | None = None
    parameters: dict[str, Any] = {}


class RequestedOutput(msgspec.Struct, kw_only=True):
    """An output that the client wants, and in which form."""

    name: str
    parameters: dict[str, Any] = {}


class InferRequest(msgspec.Struct, kw_only=True):
    """Body of `/v2/models/{model}/infer`."""

    id: str | None = None
    parameters: dict[str, Any] = {}
    inputs: list[InputTensor]
    outputs: list[RequestedOutput] = []


@dataclass(frozen=True, kw_only=True)
class InferCall:
    """A request for a model.

    Attributes:
        model: Name of the model.
        request: The body.
        texts: Texts of each input tensor, by its name.
    """

    model: str
    request: InferRequest
    texts: dict[str, list[str]]


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """An output tensor.

    Attributes:
        name: Its name.
        values: `(texts, ...)` float32, or texts.
        is_binary: Whether its bytes come behind the JSON.
    """

    name: str
    values: NDArray[Any] | list[str]
    is_binary: bool

    def description(self) -> dict[str, Any]:
        """Return the tensor in JSON, with its values if they are not binary."""
        is_text = isinstance(self.values, list)
        shape = [len(self.values)] if isinstance(self.values, list) else list(self.values.shape)
        described = {"name": self.name, "datatype": "BYTES" if is_text else "FP32", "shape": shape}
        if self.is_binary:
            return described | {"parameters": {BINARY_SIZE: len(self.content())}}
        return described | {"data": self.values if isinstance(self.values, list) else self.values.ravel()}

    def content(self) -> bytes:
        """Return the values as bytes."""
        if isinstance(self.values, list):
            return b"".join(_LENGTH.pack(len(text)) + text for text in map(str.encode, self.values))
        return self.values.astype("<f4", copy=False).tobytes()


def read_call(request: Request, content: bytes) -> InferCall:
    """Return the call of a request, whose body is JSON, or JSON and binary tensors.

    Raises:
        RequestError: Sizes do not fit.
    """
    length = request.headers.get(LENGTH_HEADER, str(len(content)))
    if not length.isdecimal() or int(length) > len(content):
        raise _invalid(f"{LENGTH_HEADER} must be the bytes of the JSON, at most {len(content)}, got {length!r}")
    body, binary = content[: int(length)], memoryview(content)[int(length) :]
    infer = msgspec.json.decode(body, type=InferRequest)
    texts = {}
    for tensor in infer.inputs:
        size = tensor.parameters.get(BINARY_SIZE)
        if size is None:
            texts[tensor.name] = list(_flat(tensor.data, tensor.name))
        elif type(size) is int and 0 <= size <= len(binary):
            texts[tensor.name] = list(_split(binary[:size], tensor.name))
            binary = binary[size:]
        else:
            raise _invalid(f"{BINARY_SIZE} of input {tensor.name!r} is {size!r}, but {len(binary)} bytes are left")
        _check_shape(tensor, len(texts[tensor.name]))
    if binary:
        raise _invalid(f"{len(binary)} bytes are left behind the tensors; each needs its {BINARY_SIZE}")
    return InferCall(model=request.path_params["model"], request=infer, texts=texts)


def make_reply(call: InferCall, model: str, tensors: Sequence[Tensor]) -> Reply:
    """Return the reply with output tensors."""
    content: dict[str, Any] = {"model_name": model, "model_version": "1"}
    content |= {} if call.request.id is None else {"id": call.request.id}
    content["outputs"] = [tensor.description() for tensor in tensors]
    if not any(tensor.is_binary for tensor in tensors):
        return Reply(content=content)
    head = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    parts = [head, *(tensor.content() for tensor in tensors if tensor.is_binary)]
    headers = {LENGTH_HEADER: str(len(head)), "content-type": "application/octet-stream"}
    return Reply(content=b"".join(parts), headers=headers)


def _flat(data: Any, name: str) -> Iterator[str]:
    """Yield the texts of nested lists."""
    if isinstance(data, str):
        yield data
    elif isinstance(data, list):
        for item in data:
            yield from _flat(item, name)
    else:
        raise _invalid(f"input {name!r} needs data, a list of texts, or {BINARY_SIZE}")


def _split(content: memoryview, name: str) -> Iterator[str]:
    """Yield the texts of bytes, each behind its length."""
    while content:
        end = _LENGTH.size + (_LENGTH.unpack_from(content)[0] if len(content) >= _LENGTH.size else 0)
        if len(content) < end or end < _LENGTH.size:
            raise _invalid(f"the bytes of input {name!r} end within a text")
        try:
            yield str(content[_LENGTH.size : end], "utf-8")
        except UnicodeDecodeError:
            raise _invalid(f"a text of input {name!r} is not UTF-8") from None
        content = content[end:]


def _check_shape(tensor: InputTensor, count: int) -> None:
    if any(size < 0 for size in tensor.shape) or math.prod(tensor.shape) != count:
        raise _invalid(f"input {tensor.name!r} has {count} texts, which do not fit its shape {tensor.shape}")


def _invalid(message: str) -> RequestError:
    return RequestError(Failure.INVALID, message)
