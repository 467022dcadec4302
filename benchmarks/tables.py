"""Tables of the documents, written from results: never typed.

    python -m encort.benchmarks.tables            writes them between the marks of README.md and docs/*.md
    python -m encort.benchmarks.tables --check    says whether they are what the results give

A mark is `<!-- table: NAME.json -->`, and the table after it ends at `<!-- end -->`.
"""

import re
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from encort.benchmarks.results import FOLDER, Outcome, Race, read
from encort.benchmarks.timing import speed
from encort.runtime.errors import InputError

ROOT = Path(__file__).parents[1]
_MARK = re.compile(r"(<!-- table: (?P<name>\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def race_table(race: Race) -> str:
    """A row a system, the slowest first; the machine's limits last."""
    ours = {each.precision: each for each in race.outcomes if each.name == "encort" and each.seconds}
    header = ["", "precision", "seconds", "tokens a second", *(f"encort {name} is" for name in ours)]
    header += ["cosine, mean / least", "STS-B", "one text of 16"]
    measured = sorted((each for each in race.outcomes if each.seconds), key=lambda each: -_seconds(each))
    rows = [
        _row(race, each, list(ours.values()))
        for each in (*measured, *(limit for limit in race.limits if limit.seconds))
    ]
    failed = [[each.name, each.precision, f"failed: {_first_line(each.error)}"] for each in race.outcomes if each.error]
    about = (
        f"{race.texts} texts, {race.tokens} tokens, {race.threads} threads, {race.machine.cpu}; "
        f"medians of {max(len(each.seconds) for each in race.outcomes)} rounds in turn, ratios with intervals of 95 %:"
    )
    return "\n".join([about, "", *_lines(header, [*rows, *failed]), "", f"`{race.command}`, {race.machine.date[:10]}"])


def _row(race: Race, system: Outcome, ours: Sequence[Outcome]) -> list[str]:
    is_limit = system in race.limits
    name = f"limit of the machine's {system.name}" if is_limit else system.name
    cells = [name, system.precision, f"{_seconds(system):.2f}", f"{race.tokens / _seconds(system):,.0f}"]
    cells += ["" if each is system else str(speed(each.seconds, system.seconds)) for each in ours]
    if is_limit:
        return cells
    cosine = "" if system.cosine_mean is None else f"{system.cosine_mean:.5f} / {system.cosine_min:.3f}"
    spearman = "" if system.spearman is None else f"{system.spearman:.2f}"
    return [*cells, cosine, spearman, f"{1e3 * statistics.median(system.grid['1 x 16']):.2f} ms"]


def _seconds(system: Outcome) -> float:
    return statistics.median(system.seconds)


def _first_line(error: str | None) -> str:
    return (error or "").strip().splitlines()[0].replace("|", "/")


def _lines(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    filled = [[*row, *[""] * (len(header) - len(row))] for row in (header, ["---"] * len(header), *rows)]
    return [f"| {' | '.join(row)} |" for row in filled]


def written(text: str, folder: Path = FOLDER) -> str:
    """A document with its tables as the results give them."""
    return _MARK.sub(
        lambda mark: f"{mark[1]}{_table(folder / mark['name'])}\n{mark[3]}",
        text,
    )


def _table(file: Path) -> str:
    result = read(file)
    if not isinstance(result, Race):
        raise InputError(f"{file} is no race")
    return race_table(result)


@click.command(help=__doc__)
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 if a table is not what its result gives.")
def main(check: bool) -> None:
    stale = []
    for file in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        before = file.read_text(encoding="utf-8")
        after = written(before)
        if after != before:
            stale.append(file.relative_to(ROOT))
            if not check:
                file.write_text(after, encoding="utf-8")
    for file in stale:
        click.echo(f"{file}: {'its tables are not those of the results' if check else 'written'}")
    sys.exit(1 if check and stale else 0)


if __name__ == "__main__":
    main()
