"""A deployment of Ray Serve.

    from encort.integrations.ray.serving import deployment
    from ray import serve

    handle = serve.run(deployment("my.bundle", num_cpus=2, replicas=(1, 8)))
    vector = handle.embed.remote("a text").result()

Each replica awaits the scheduler of `Model.serving`, which gathers concurrent requests into runs. `@serve.batch` would
only delay them.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from encort.integrations.lazy_model import LoadKeywords
from encort.integrations.threads import with_threads
from encort.runtime.common.errors import InputError, OverloadedError, WrongTaskError
from encort.runtime.common.extras import require
from encort.runtime.common.files import parse_json
from encort.runtime.model import load
from encort.runtime.serving.async_service import AsyncService
from encort.runtime.tasks.results import Classification, Matches, Span
from encort.runtime.text.token_batch import Text

require("encort.integrations.ray.serving", "ray", "ray.serve", "starlette")

from ray import serve  # noqa: E402 - after the check that it is installed
from starlette.requests import Request  # noqa: E402
from starlette.responses import JSONResponse, Response  # noqa: E402

from encort.integrations.ray.data import assigned_cpus  # noqa: E402

_ONGOING = 32
"""Requests that a replica works on at a time before Ray starts another: enough for full micro-batches."""
_CALLS = ("embed", "classify", "score", "tag")


class Replica:
    """One model and its scheduler.

    Requests are those of `AsyncService`: `handle.embed.remote("a text", dimensions=256)`. Over HTTP, POST a JSON object
    such as `{"call": "classify", "text": "a text"}`; its other fields are options.
    """

    def __init__(self, bundle: str, max_wait_ms: float, queue_tokens: int, load_options: LoadKeywords) -> None:
        """Open the bundle, and compare it with its golden vectors."""
        self._model = load(bundle, **with_threads(load_options, assigned_cpus))
        self._context = self._model.serving(max_wait_ms=max_wait_ms, queue_tokens=queue_tokens)
        self._model.warm_up()
        self._model.check_health()

    async def embed(self, text: Text, **options: Any) -> NDArray[Any]:
        """Return the sentence embedding of a text, `(dimensions,)` float32; see `AsyncService.embed`."""
        embedding: NDArray[Any] = await (await self._service()).embed(text, **options)
        return embedding

    async def classify(self, text: Text, **options: Any) -> Classification:
        """Return the class of a text; see `AsyncService.classify`."""
        return await (await self._service()).classify(text, **options)

    async def score(self, text: Text, **options: Any) -> float:
        """Return the number of a text or pair; see `AsyncService.score`."""
        return await (await self._service()).score(text, **options)

    async def tag(self, text: Text, **options: Any) -> Matches[Span]:
        """Return the spans of a text; see `AsyncService.tag`."""
        return await (await self._service()).tag(text, **options)

    async def __call__(self, request: Request) -> Response:
        """Answer over HTTP; see the class. The status is 400 for a wrong request, and 429 if the queue is full."""
        try:
            options = parse_json(await request.body())
            call, text = options.pop("call", "embed"), options.pop("text")
            if call not in _CALLS:
                raise InputError(f"call must be one of {', '.join(_CALLS)}; got {call!r}")
            result = await getattr(self, call)(tuple(text) if isinstance(text, list) else text, **options)
        except OverloadedError as error:
            return JSONResponse({"error": str(error)}, status_code=429)
        except (InputError, WrongTaskError) as error:
            return JSONResponse({"error": str(error)}, status_code=400)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            return JSONResponse({"error": f"expected an object with call and text: {error!r}"}, status_code=400)
        return JSONResponse({call: _plain(result)})

    async def check_health(self) -> None:
        """Compare a result with its golden vector. Ray replaces a replica whose check raises.

        Raises:
            FidelityError: The results are not those of the model that was exported.
            ModelClosedError: The model does not work any more.
        """
        await asyncio.to_thread(self._model.check_health)

    async def _service(self) -> AsyncService:
        return await self._context.__aenter__()  # makes an AsyncService, and nothing that has to be left


def deployment(
    bundle: str,
    *,
    replicas: int | tuple[int, int] = 1,
    num_cpus: float = 1,
    ongoing_requests: int = _ONGOING,
    max_wait_ms: float = 0,
    queue_tokens: int = 65536,
    ray_options: Mapping[str, Any] | None = None,
    **load_options: Unpack[LoadKeywords],
) -> serve.Application:
    """Return an application for `serve.run`.

    Args:
        bundle: Folder that all nodes see, URL in an object store, or name on the hub.
        replicas: Number of replicas, or the fewest and the most of them.
        num_cpus: Cores, and so threads, of each replica.
        ongoing_requests: Requests per replica that Ray aims at when it changes the number of replicas. A replica takes
            four times as many.
        max_wait_ms: See `Model.serving`.
        queue_tokens: See `Model.serving`.
        ray_options: Other options of `serve.deployment`, such as `{"name": "banking"}`.
        load_options: Options of `encort.load`.
    """
    scaling: dict[str, Any] = {"num_replicas": replicas}
    if not isinstance(replicas, int):
        least, most = replicas
        config = {"min_replicas": least, "max_replicas": most, "target_ongoing_requests": ongoing_requests}
        scaling = {"autoscaling_config": config}
    options = {
        "name": "encort",
        "ray_actor_options": {"num_cpus": num_cpus},
        "max_ongoing_requests": 4 * ongoing_requests,
        **scaling,
        **(ray_options or {}),
    }
    return serve.deployment(Replica, **options).bind(bundle, max_wait_ms, queue_tokens, dict(load_options))


def _plain(result: Any) -> Any:
    """Return a result as JSON holds it."""
    if isinstance(result, list):
        return [asdict(item) for item in result]
    return result.tolist() if isinstance(result, np.ndarray | np.generic) else asdict(result)
