"""The pages at `/` and `/docs`: static files, which talk to the server's own API.

They need no build step and no other host.
"""

from collections.abc import Mapping
from importlib.resources import files

_PAGES = {"index.html": "/", "docs.html": "/docs"}
_MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

SECURITY_HEADERS: Mapping[str, str] = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
"""Headers of every file: the page loads nothing from elsewhere, and no other page shows it in a frame."""


def _read_files() -> Mapping[str, tuple[bytes, str]]:
    contents = {}
    for file in files(__name__).iterdir():
        suffix = file.name[file.name.rfind(".") :]
        if suffix in _MEDIA_TYPES:
            path = _PAGES.get(file.name, f"/page/{file.name}")
            contents[path] = file.read_bytes(), f"{_MEDIA_TYPES[suffix]}; charset=utf-8"
    return contents


PAGE_FILES = _read_files()
"""Content and media type by path. They are read once, so that no path of a request reaches the file system."""
