"""Pages of the server in a real browser."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@contextlib.contextmanager
def opened_page(browser: "Browser", address: str) -> "Iterator[Page]":
    """Open the page at `/`. A test fails on an error in the console, such as a violated security policy."""
    with browser.new_page() as page:
        errors: list[str] = []
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        page.wait_for_selector("#tasks input")
        yield page
        assert errors == []


def run_task(page: "Page", task: str, texts: str, question: str = "") -> None:
    """Choose a task, type texts, and wait for the result."""
    page.get_by_role("radio", name=task).check(force=True)
    page.locator("#texts").fill(texts)
    if question:
        page.locator("#question").fill(question)
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#result > *")
