"""The OpenAPI description of the routes, from the types of their bodies."""

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from encort.runtime.server.endpoints import Description

_PARAMETER = re.compile(r"{(\w+)}")
_REFERENCE = "#/components/schemas/{name}"


_ADMIN = "admin_key"
"""Name of the keys of operators."""


def describe(endpoints: Sequence[Description]) -> dict[str, Any]:
    """Return the description of all routes, a value of JSON. `servers` is left to the request: it has the path."""
    types = [kind for endpoint in endpoints for kind in (endpoint.body, endpoint.result) if kind is not None]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    schema_of = dict(zip(map(repr, types), schemas, strict=True))
    paths: dict[str, Any] = {}
    for endpoint in endpoints:
        for path in endpoint.paths:
            template = path.replace(":path}", "}")
            paths.setdefault(template, {})[endpoint.method.lower()] = _operation(endpoint, template, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {"title": "encort", "version": "1"},
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": {_ADMIN: {"type": "http", "scheme": "bearer"}}},
    }


def _operation(endpoint: Description, path: str, schema_of: dict[str, Any]) -> dict[str, Any]:
    failure = {"description": "A failure, in the form of the route's contract"}
    success: dict[str, Any] = {"description": "Success"}
    if endpoint.result is not None:
        success["content"] = _json(schema_of[repr(endpoint.result)])
    operation: dict[str, Any] = {"summary": endpoint.summary, "responses": {"200": success, "default": failure}}
    if names := _PARAMETER.findall(path):
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
    if endpoint.is_for_admins:
        operation["security"] = [{_ADMIN: []}]
    if endpoint.body is not None:
        operation["requestBody"] = {"required": True, "content": _json(schema_of[repr(endpoint.body)])}
    return operation


def _json(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
