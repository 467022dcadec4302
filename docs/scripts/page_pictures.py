"""Take the pictures of the server's page for the documentation, light and dark, with Debian's Chromium.

    apt-get install chromium
    python docs/scripts/page_pictures.py minilm.bundle

The bundle needs embeddings: the pictures show the similarities of the page's own example.
"""

import os
import shutil
from pathlib import Path

import click
from playwright.sync_api import Browser, sync_playwright

from encort.benchmarks.server.client import started

FOLDER = Path(__file__).parents[1] / "images"
WIDTH, HEIGHT = 1100, 670
MOST_BYTES = 150_000
RUNS = 5
"""Runs until the picture: the first ones of a new server take longer."""


def take_picture(browser: Browser, url: str, theme: str, file: Path) -> None:
    """Run the example of the page, and write a picture of it."""
    size = {"width": WIDTH, "height": HEIGHT}
    with browser.new_page(viewport=size, color_scheme=theme, device_scale_factor=1.4) as page:  # type: ignore[arg-type]
        page.goto(url)
        page.wait_for_selector("#tasks input")
        page.locator("#example").click()
        for _ in range(RUNS):
            page.locator("#run").click()
            page.wait_for_timeout(300)
        page.wait_for_selector("#result > *")
        page.mouse.move(0, 0)
        page.evaluate("document.activeElement.blur()")
        page.screenshot(path=file)
    if file.stat().st_size > MOST_BYTES:
        raise click.ClickException(f"{file} has more than {MOST_BYTES} bytes; take a smaller part of the page")


@click.command()
@click.argument("bundle")
def main(bundle: str) -> None:
    """Serve BUNDLE and take the pictures of its page."""
    chromium = shutil.which("chromium")
    if chromium is None:
        raise click.ClickException("there is no chromium: apt-get install chromium")
    FOLDER.mkdir(exist_ok=True)
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    with started([f"minilm={bundle}"]) as (_, url), sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=options)
        for theme in ("light", "dark"):
            take_picture(browser, url, theme, FOLDER / f"page-{theme}.png")


if __name__ == "__main__":
    main()
