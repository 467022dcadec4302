"""Bring files of the repository into the site: a link that leaves `docs/` leads to a copy in `repository/`.

Documents can be read in the repository, where links follow its folders, and on the site, which holds `docs/` alone. A
Markdown file becomes a page, any other file is copied as it is. A link to a file that does not exist stays, and fails
the build.
"""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
COPIES = "repository"
LINK = re.compile(
    r"""
    (?P<code> ^(?P<fence>```+).*?^(?P=fence)[ ]*$ | `[^`\n]+` ) |   # code has no links
    (?<=\]\() (?!\w+:|\#|<) (?P<target>[^)\#\s]+)
    """,
    re.DOTALL | re.MULTILINE | re.VERBOSE,
)
ALWAYS = ("CHANGELOG.md", "CONTRIBUTING.md")
"""Files that the navigation names."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files that the documents link to, and those that these link to in turn."""
    waiting = [*ALWAYS, *(f"docs/{page.src_uri}" for page in files.documentation_pages())]
    seen = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if not name.startswith("docs/"):
            files.append(File.generated(config, f"{COPIES}/{name}", abs_src_path=str(ROOT / name)))
        if name.endswith(".md"):
            waiting += [target for target in _targets(name) if (ROOT / target).is_file()]
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Point the links of a page to pages of the site."""
    here = page.file.src_uri
    folder = PurePosixPath(_in_repository(here)).parent

    def replace(link: re.Match[str]) -> str:
        if link["code"]:
            return link[0]
        return relpath(_on_site(_resolve(folder, link["target"])), str(PurePosixPath(here).parent))

    return LINK.sub(replace, markdown)


def _targets(name: str) -> Iterator[str]:
    folder = PurePosixPath(name).parent
    for link in LINK.finditer((ROOT / name).read_text(encoding="utf-8")):
        if link["target"]:
            yield _resolve(folder, link["target"])


def _resolve(folder: PurePosixPath, link: str) -> str:
    """Return the file in the repository that a link of a document in this folder means; of a folder, its first page."""
    target = normpath(str(folder / link))
    for index in ("index.md", "README.md"):
        if (ROOT / target / index).is_file():
            return f"{target}/{index}"
    return target


def _in_repository(source: str) -> str:
    return source.removeprefix(f"{COPIES}/") if source.startswith(f"{COPIES}/") else f"docs/{source}"


def _on_site(name: str) -> str:
    return name.removeprefix("docs/") if name.startswith("docs/") else f"{COPIES}/{name}"
