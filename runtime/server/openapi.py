"""The OpenAPI description of the routes, from the types of their bodies."""

from collections.abc import Sequence
from typing import Any

import msgspec

from encort.runtime.server.endpoints import Endpoint

_REFERENCE = "#/components/schemas/{name}"


def describe(endpoints: Sequence[Endpoint], *, base_path: str) -> dict[str, Any]:
    """Return the description of all routes, a value of JSON."""
    types = [kind for endpoint in endpoints for kind in (endpoint.body, endpoint.result) if kind is not None]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    schema_of = dict(zip(map(repr, types), schemas, strict=True))
    paths: dict[str, Any] = {}
    for endpoint in endpoints:
        for path in endpoint.paths:
            paths.setdefault(path, {})[endpoint.method.lower()] = _operation(endpoint, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {"title": "encort", "version": "1"},
        "servers": [{"url": base_path or "/"}],
        "paths": paths,
        "components": {"schemas": components},
    }


def _operation(endpoint: Endpoint, schema_of: dict[str, Any]) -> dict[str, Any]:
    failure = {"description": "A failure, in the form of the route's contract"}
    success: dict[str, Any] = {"description": "Success"}
    if endpoint.result is not None:
        success["content"] = _json(schema_of[repr(endpoint.result)])
    operation: dict[str, Any] = {"summary": endpoint.summary, "responses": {"200": success, "default": failure}}
    if endpoint.body is not None:
        operation["requestBody"] = {"required": True, "content": _json(schema_of[repr(endpoint.body)])}
    return operation


def _json(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
