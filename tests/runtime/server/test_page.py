"""The page at `/` in a real browser, with the answers of a fake server."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from encort.runtime.server.page import PAGE_FILES, SECURITY_HEADERS
from tests.runtime.server.page_server import KEY, page_server
from tests.runtime.server.pages import opened_page, run_task

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture
def page(browser: "Browser") -> "Iterator[Page]":
    """The page with all models."""
    with page_server() as address, opened_page(browser, address) as page:
        yield page


def test_similarities_are_a_heat_map_with_tokens_and_times(page: "Page") -> None:
    run_task(page, "Similarity", "one\n\n  two ")
    cells = page.locator("td:not(.corner)").all_inner_texts()
    assert cells == ["1.00", "0.60", "0.60", "1.00"]
    assert page.locator("th[scope=row]").all_inner_texts() == ["1 one", "2 two"]
    assert page.locator("#times").inner_text().split("\n") == [
        *("tokens", "12", "total", "7 ms", "tokenization", "0 ms", "queue", "1 ms", "run", "5 ms")
    ]
    colours = {page.evaluate(f"getComputedStyle(document.querySelectorAll('td')[{i}]).backgroundColor") for i in (1, 2)}
    assert len(colours) == 2


def test_classes_are_bars_and_labels_are_text(page: "Page") -> None:
    run_task(page, "Classes", "<script>document.title = 'broken'</script>")
    assert page.locator(".bars .name").all_inner_texts() == ["<i>", "b"]
    assert page.locator(".bars .number").all_inner_texts() == ["0.750", "0.250"]
    widths = page.evaluate("[...document.querySelectorAll('.bar')].map(bar => getComputedStyle(bar, '::before').width)")
    assert float(widths[0][:-2]) == pytest.approx(3 * float(widths[1][:-2]), rel=0.02)
    assert "<script>" in page.locator(".card p").inner_text()
    assert page.title() == "encort"


def test_offsets_of_spans_count_code_points(page: "Page") -> None:
    run_task(page, "Spans", "🙂 Ada & <b>")
    assert page.locator("mark").evaluate("mark => mark.firstChild.data") == "Ada"
    assert page.locator(".marked").evaluate("p => p.lastChild.data") == " & <b>"


def test_answers_are_marked_in_the_context(page: "Page") -> None:
    run_task(page, "Answers", "In 1932.", question="When?")
    assert page.locator("mark").evaluate("mark => mark.firstChild.data") == "1932"
    assert page.locator(".bars .name").all_inner_texts() == ["1932"]


def test_documents_are_ranked_and_negative_scores_have_no_bar(page: "Page") -> None:
    run_task(page, "Ranking", "one\ntwo", question="Which?")
    assert page.locator(".bars .name").all_inner_texts() == ["two", "one"]
    assert page.locator(".bars .number").all_inner_texts() == ["3.500", "-1.000"]


def test_a_model_offers_only_its_tasks(page: "Page") -> None:
    page.locator("#model").select_option("<b>tags</b>")
    assert page.locator("#tasks label").all_inner_texts() == ["Spans"]
    assert page.locator("#question-field").is_hidden()


def test_the_keyboard_is_enough(page: "Page") -> None:
    page.locator("#model").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("radio", name="Classes").is_checked()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "texts"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_in_one_direction_only(page: "Page", scheme: "str") -> None:
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    page.set_viewport_size({"width": 360, "height": 700})
    run_task(page, "Similarity", "one\n" + "a long text " * 20)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    background = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert (background == "rgb(20, 22, 27)") == (scheme == "dark")


def test_a_server_with_keys_asks_for_one(browser: "Browser") -> None:
    with page_server(key=KEY) as address, browser.new_page() as page:
        page.goto(address)
        page.wait_for_selector("#status.error")
        assert page.locator("#status").inner_text() == "no <b>valid</b> key"
        page.locator("#key").fill(KEY)
        page.keyboard.press("Tab")
        page.wait_for_selector("#tasks input")
        assert page.locator("#status").inner_text() == ""


def test_the_page_names_no_other_host() -> None:
    for content, _ in PAGE_FILES.values():
        assert b"http" not in content.replace(b"http://www.w3.org/2000/svg", b"")
    assert "default-src 'none'" in SECURITY_HEADERS["content-security-policy"]
    assert {"/", "/page/main.js", "/page/page.css", "/page/icon.svg"} <= PAGE_FILES.keys()


def test_every_file_of_the_page_is_in_the_package() -> None:
    import tomllib

    root = Path(__file__).parents[3]
    patterns = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    suffixes = {file.suffix for file in (root / "runtime/server/page").iterdir() if file.suffix not in (".py", "")}
    assert suffixes == {pattern[1:] for pattern in patterns["encort.runtime.server.page"]}
