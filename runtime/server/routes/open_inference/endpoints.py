"""The routes of the Open Inference Protocol."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from starlette.requests import Request

from encort.runtime.server.embeddings import as_texts, check_count, run_all
from encort.runtime.server.endpoints import Endpoint, Reply, Server
from encort.runtime.server.errors import OPEN_INFERENCE, Failure, RequestError
from encort.runtime.server.routes.open_inference.outputs import SPECS, Output, outputs_of
from encort.runtime.server.routes.open_inference.tensors import InferCall, InferRequest, Tensor, make_reply, read_call
from encort.runtime.text.token_batch import Text

_TEXT, _PAIR = "text", "text_pair"
"""Names of the input tensors: texts, and for pairs their second texts."""


async def infer(server: Server, call: InferCall) -> Reply:
    """Return the requested outputs for texts or pairs. Without a request, they are all that such texts have."""
    served = server.models.get(call.model)
    texts = _texts(call, most=server.settings.max_items)
    prompt = call.request.parameters.get("prompt_name")
    wants_binary = bool(call.request.parameters.get("binary_data_output"))
    results: dict[str, Sequence[Any]] = {}
    tensors = []
    for output, parameters in _wanted(call.request, outputs_of(served), texts):
        if output.task not in results:
            spec = SPECS[output.task](served.service.tasks, prompt)
            results[output.task] = (await run_all(served, spec, texts)).items
        is_binary = bool(parameters.get("binary_data", wants_binary))
        tensors.append(Tensor(name=output.name, values=output.values(results[output.task]), is_binary=is_binary))
    return make_reply(call, served.name, tensors)


async def model_metadata(server: Server, model: str) -> Reply:
    """Return the input and output tensors of a model."""
    served = server.models.get(model)
    inputs: list[dict[str, Any]] = [{"name": name, "datatype": "BYTES", "shape": [-1]} for name in (_TEXT, _PAIR)]
    inputs[1] |= {"parameters": {"optional": True}}
    outputs = [output.description() for output in outputs_of(served)]
    content = {"name": served.name, "versions": ["1"], "platform": "encort", "inputs": inputs, "outputs": outputs}
    return Reply(content=content)


async def model_ready(server: Server, model: str) -> Reply:
    """Return whether a model takes requests."""
    return Reply(content={"name": server.models.get(model).name, "ready": True})


async def server_metadata(_: Server, __: None) -> Reply:
    """Return the name of the server and its extensions of the protocol."""
    return Reply(content={"name": "encort", "version": version("encort"), "extensions": ["binary_tensor_data"]})


async def live(_: Server, __: None) -> Reply:
    """Return whether the server answers."""
    return Reply(content={"live": True})


async def ready(server: Server, _: None) -> Reply:
    """Return whether every model takes requests."""
    if not server.models.is_ready:
        raise RequestError(Failure.UNHEALTHY, "the server is not ready; try again later")
    return Reply(content={"ready": True})


def _texts(call: InferCall, *, most: int) -> list[Text]:
    names = call.texts.keys()
    if _TEXT not in names or not names <= {_TEXT, _PAIR}:
        message = f"expected the input {_TEXT!r}, and {_PAIR!r} for pairs; got {', '.join(map(repr, names)) or 'none'}"
        raise RequestError(Failure.INVALID, message)
    first, second = call.texts[_TEXT], call.texts.get(_PAIR)
    if second is None:
        return [text for text in as_texts(first, most=most) if isinstance(text, str)]
    if not first or len(first) != len(second):
        message = f"{_TEXT!r} has {len(first)} texts and {_PAIR!r} has {len(second)}; send as many, at least one"
        raise RequestError(Failure.INVALID, message)
    check_count(len(first), most=most)
    return list(zip(first, second, strict=True))


def _wanted(request: InferRequest, outputs: list[Output], texts: Sequence[Text]) -> list[tuple[Output, dict[str, Any]]]:
    """Return the outputs of a request with their parameters."""
    by_name = {output.name: output for output in outputs}
    if not outputs:
        raise RequestError(Failure.WRONG_TASK, "this model has no embeddings and no head, so it has no outputs here")
    if not request.outputs:
        fitting = [output for output in outputs if output.takes(texts[0])]
        return [(output, {}) for output in fitting or outputs]  # if none fits, its task says what it takes
    for output in request.outputs:
        if output.name not in by_name:
            message = f"there is no output {output.name!r}; this model has {', '.join(by_name)}"
            raise RequestError(Failure.INVALID, message)
    return [(by_name[output.name], output.parameters) for output in request.outputs]


def _model(request: Request, _: bytes) -> str:
    return str(request.path_params["model"])


_HEALTH = [
    Endpoint(paths=(path,), summary=summary, contract=OPEN_INFERENCE, handler=handler, result=dict[str, Any])
    for path, summary, handler in (
        ("/v2", "Name and extensions of the server", server_metadata),
        ("/v2/health/live", "Whether the server answers", live),
        ("/v2/health/ready", "Whether the server is ready", ready),
    )
]
ENDPOINTS = [
    *_HEALTH,
    Endpoint(
        paths=("/v2/models/{model:path}/infer",),
        summary="Results of a model as tensors",
        contract=OPEN_INFERENCE,
        handler=infer,
        body=InferRequest,
        result=dict[str, Any],
        parse=read_call,
    ),
    *(
        Endpoint(
            paths=(path,),
            summary=summary,
            contract=OPEN_INFERENCE,
            handler=handler,
            result=dict[str, Any],
            parse=_model,
        )
        for path, summary, handler in (
            # Before the route that it fits too.
            ("/v2/models/{model:path}/ready", "Whether a model is ready", model_ready),
            ("/v2/models/{model:path}", "Tensors of a model", model_metadata),
        )
    ),
]
