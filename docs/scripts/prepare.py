"""Lay out the pages of the site: those of `docs/`, the files of the repository that they link to, and the command line.

    python docs/scripts/prepare.py build/docs

Documents can be read in the repository, where links follow its folders, and on the site, which holds `docs/` alone. A
link that leaves `docs/` leads to a copy in the site's folder `repository/`: a Markdown file becomes a page, and any
other file is copied as it is. A link to a file that does not exist stays, and fails the build.
"""

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath

from commands import command_reference

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


def main(site: Path) -> None:
    """Write all pages and files of the site into this folder."""
    shutil.rmtree(site, ignore_errors=True)
    for name in reachable_files():
        target = site / _on_site(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".md"):
            target.write_text(with_links_of_the_site(name), encoding="utf-8")
        else:
            shutil.copy(ROOT / name, target)
    with (site / "reference/cli.md").open("a", encoding="utf-8") as page:
        page.write(command_reference())


def documents() -> Iterator[str]:
    """Yield the names of the files of `docs/`, without the scripts."""
    for file in sorted((ROOT / "docs").rglob("*")):
        if file.is_file() and "scripts" not in file.parts:
            yield str(file.relative_to(ROOT))


def reachable_files() -> set[str]:
    """Return the files of `docs/`, those that they link to, and those that these link to in turn."""
    waiting = [*ALWAYS, *documents()]
    found = set()
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        if name.endswith(".md"):
            waiting += [target for target in _targets(name) if (ROOT / target).is_file()]
    return found


def with_links_of_the_site(name: str) -> str:
    """Return the text of a document of the repository with links to pages of the site."""
    folder, folder_on_site = PurePosixPath(name).parent, PurePosixPath(_on_site(name)).parent

    def replace(link: re.Match[str]) -> str:
        if link["code"]:
            return link[0]
        return relpath(_on_site(_resolve(folder, link["target"])), str(folder_on_site))

    return LINK.sub(replace, (ROOT / name).read_text(encoding="utf-8"))


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


def _on_site(name: str) -> str:
    return name.removeprefix("docs/") if name.startswith("docs/") else f"{COPIES}/{name}"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
