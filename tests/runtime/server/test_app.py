import asyncio

import pytest

import encort
from encort.errors import InputError
from encort.server import ServerSettings, app
from tests.runtime.server.conftest import Connect


def test_a_request_needs_one_of_the_keys(connect: Connect, encoder: encort.Model) -> None:
    async def statuses() -> list[int]:
        async with connect({"m": encoder}, api_keys=("first", "second")) as client:
            keys = ["Bearer first", "bearer second", "Bearer third", "Bearer", "Basic first"]
            answers = [await client.get("/v1/models", headers={"authorization": key}) for key in keys]
            return [answer.status_code for answer in [*answers, await client.get("/v1/models")]]

    assert asyncio.run(statuses()) == [200, 200, 401, 401, 401, 401]


def test_health_is_public_and_has_no_body(connect: Connect, encoder: encort.Model) -> None:
    async def check() -> None:
        async with connect({"m": encoder}, api_keys=("secret",), base_path="/models") as client:
            answer = await client.get("/models/health")
            assert (answer.status_code, answer.content) == (200, b"")

    asyncio.run(check())


def test_pages_of_allowed_origins_may_send_a_key(connect: Connect, encoder: encort.Model) -> None:
    async def check() -> None:
        async with connect({"m": encoder}, cors_origins=("https://a.example",)) as client:
            headers = {
                "origin": "https://a.example",
                "access-control-request-method": "POST",
                "access-control-request-headers": "authorization,content-type",
            }
            answer = await client.options("/v1/embeddings", headers=headers)
            assert answer.headers["access-control-allow-origin"] == "https://a.example"
            assert "authorization" in answer.headers["access-control-allow-headers"].lower()

    asyncio.run(check())


def test_the_description_has_every_route(connect: Connect, encoder: encort.Model) -> None:
    async def check() -> None:
        async with connect({"m": encoder}) as client:
            description = (await client.get("/openapi.json")).json()
            assert {"/embed", "/v1/embeddings", "/v1/models", "/health"} <= description["paths"].keys()

    asyncio.run(check())


@pytest.mark.parametrize("admin_keys", [(), ("secret",)])
def test_the_description_has_the_route_of_operators_if_they_have_keys(
    connect: Connect, encoder: encort.Model, admin_keys: tuple[str, ...]
) -> None:
    async def check() -> None:
        async with connect({"m": encoder}, admin_keys=admin_keys) as client:
            description = (await client.get("/openapi.json")).json()
            route = description["paths"].get("/admin/models/{name}")
            assert (route is not None) == bool(admin_keys)
            if route is not None:
                assert [key for keys in route["post"]["security"] for key in keys] == ["admin_key"]
                assert "admin_key" in description["components"]["securitySchemes"]
                assert route["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]

    asyncio.run(check())


def test_a_server_that_has_not_started_is_not_ready(encoder: encort.Model) -> None:
    assert not app({"m": encoder}).state.server.models.is_ready


@pytest.mark.parametrize("settings", [{"base_path": "x"}, {"max_items": 0}, {"api_keys": ("",)}])
def test_settings_are_checked(settings: dict[str, object]) -> None:
    with pytest.raises(InputError):
        ServerSettings(**settings)  # type: ignore[arg-type]


def test_an_alias_must_name_a_model(encoder: encort.Model) -> None:
    with pytest.raises(InputError, match="alias 'a'"):
        app({"m": encoder}, aliases={"a": "x"})


@pytest.mark.parametrize("base_path", ["", "/models"])
def test_unknown_routes_fail_in_the_form_of_their_clients(
    connect: Connect, encoder: encort.Model, base_path: str
) -> None:
    async def check() -> None:
        async with connect({"m": encoder}, base_path=base_path) as client:
            of_openai = [await client.post(f"{base_path}/v1/x"), await client.get(f"{base_path}/v1/embeddings")]
            of_tei = [await client.post(f"{base_path}/x"), await client.get(f"{base_path}/embed")]
        for answers in (of_openai, of_tei):
            assert [answer.status_code for answer in answers] == [404, 405]
            assert answers[1].headers["allow"] == "POST"
        for answer in of_openai:
            assert answer.json()["error"].keys() == {"message", "type", "param", "code"}
            assert answer.json()["error"]["type"] == "invalid_request_error"
        assert of_tei[0].json() == {"error": f"there is no route {base_path}/x", "error_type": "Validation"}
        message = f"{base_path}/embed does not take GET; send POST"
        assert of_tei[1].json() == {"error": message, "error_type": "Validation"}

    asyncio.run(check())
