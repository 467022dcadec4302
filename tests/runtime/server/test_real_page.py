"""The pages at `/` and `/docs` of the real server, in a real browser."""

import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest

import encort
from tests.runtime.server.pages import opened_page, run_task
from tests.runtime.server.server_process import START_S, started

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

TEXTS = "hello\nmy card is lost\nchange the pin"


@pytest.fixture(scope="module")
def address(encoder_bundle: Path, multi_head: Path) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENCORT_ADMIN_KEYS", "admin")
        with started(multi_head, encoder_bundle) as (_, address):
            yield address


@pytest.fixture
def page(browser: "Browser", address: str) -> "Iterator[Page]":
    """The page of a bundle of all heads, `m`, and of an encoder, `m1`."""
    with opened_page(browser, address) as page:
        yield page


def test_the_heat_map_has_the_cosines_of_the_model(page: "Page", encoder: encort.Model) -> None:
    page.locator("#model").select_option("m1")
    run_task(page, "Similarity", TEXTS)
    vectors = encoder.embed(TEXTS.split("\n"))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    shown = [float(text) for text in page.locator("td:not(.corner)").all_inner_texts()]
    np.testing.assert_allclose(shown, (vectors @ vectors.T).ravel(), atol=0.0051)
    tokens = int(encoder.tokenize(TEXTS.split("\n")).tokens_per_text.sum())
    assert page.locator("#times").inner_text().split("\n")[:2] == ["tokens", str(tokens)]


def test_the_bars_have_the_classes_of_the_model(page: "Page", heads: encort.Model) -> None:
    run_task(page, "Classes", "hello")
    scores = heads.classify(["hello"])[0].scores
    expected = sorted(scores, key=lambda label: -scores[label])[:10]
    assert page.locator(".bars .name").all_inner_texts() == expected


def test_the_marks_have_the_spans_of_the_model(page: "Page", heads: encort.Model) -> None:
    run_task(page, "Spans", "🙂 my card is lost")
    expected = [span.text for span in heads.tag(["🙂 my card is lost"])[0]]
    assert expected
    assert page.locator("mark").evaluate_all("marks => marks.map(mark => mark.firstChild.data)") == expected


def test_the_answer_is_that_of_the_model(page: "Page", heads: encort.Model) -> None:
    context = "my card is lost, hello"
    run_task(page, "Answers", context, question="my card")
    answers = heads.answer([("my card", context)], n_best=3)[0]
    assert page.locator(".bars .name").all_inner_texts() == [answer.text for answer in answers]


def test_the_documents_are_in_the_order_of_the_model(page: "Page", heads: encort.Model) -> None:
    run_task(page, "Ranking", TEXTS, question="my card")
    documents = TEXTS.split("\n")
    expected = [documents[item.index] for item in heads.rank("my card", documents)]
    assert page.locator(".bars .name").all_inner_texts() == expected


def test_the_error_of_the_server_is_shown(browser: "Browser", address: str) -> None:
    with browser.new_page() as page:
        page.goto(address)
        page.wait_for_selector("#tasks input")
        page.locator("#texts").fill("")
        page.keyboard.press("Control+Enter")
        page.locator("#texts").press("Control+Enter")
        page.wait_for_selector("#status.error")
        assert "empty" in page.locator("#status").inner_text()


def test_the_documentation_shows_every_route_and_commands_that_work(page: "Page", address: str) -> None:
    page.get_by_role("link", name="API").click()
    page.wait_for_selector("#routes details")
    paths = httpx.get(f"{address}/openapi.json").json()["paths"]
    assert page.locator("summary code").all_inner_texts() == [
        f"{method.upper()} {path}" for path, methods in paths.items() for method in methods
    ]
    page.locator("summary", has_text="POST /embed ").first.click()
    assert page.locator("details[open] dt").all_inner_texts()[-1] == "dimensions"
    command = page.locator("details[open] pre").inner_text()
    assert command == f"""curl {address}/embed --json '{{"inputs":"a text"}}'"""
    curl = shutil.which("curl")
    if curl is not None:
        answer = subprocess.check_output([curl, "-s", "--fail", *shlex.split(command)[1:]], timeout=START_S)
        assert answer.startswith(b"[[")


def test_the_documentation_shows_where_an_admin_key_goes(page: "Page", address: str) -> None:
    page.get_by_role("link", name="API").click()
    page.locator("summary", has_text="/admin/").click()
    assert page.locator("details[open] dt").all_inner_texts() == ["bundle"]
    command = page.locator("details[open] pre").inner_text()
    header = '--header "Authorization: Bearer $ADMIN_KEY"'
    assert command == f"curl {address}/admin/models/{{name}} {header} --json '{{}}'"
