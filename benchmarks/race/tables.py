"""Tables of the documents, written from results: never typed.

    python -m encort.benchmarks.race.tables            writes them between the marks of README.md and docs/*.md
    python -m encort.benchmarks.race.tables --check    says whether they are what the results give

A mark is `<!-- race: NAME.json -->` for all that a race measured, or `<!-- brief: NAME.json -->` for what a reader
wants to know first; the table after it ends at `<!-- end -->`.
"""

import re
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from encort.benchmarks.results import FOLDER, Outcome, Race, read
from encort.benchmarks.timing import speed
from encort.runtime.common.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
_MARK = re.compile(r"(<!-- (?P<kind>race|brief): (?P<name>\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def race_table(race: Race) -> str:
    """A row a system, the slowest first, the machine's limits last; the same for calls of one shape; and checks."""
    parts = _timed(race) if race.outcomes else [f"{race.model}, on {race.machine.gpu or race.machine.cpu}."]
    if race.checks:
        parts += ["", "Checks of encort's results:", "", *_lines(["", "found", "bound", "right"], _checked(race))]
    return "\n".join([*parts, "", _source(race)])


def _timed(race: Race) -> list[str]:
    ours = _ours(race)
    header = ["", "precision", "seconds (least-most)", "tokens a second", *(f"encort {name} is" for name in ours)]
    header += ["cosine, mean / least", "STS-B", "start to first, s", "peak MiB"]
    rows = [_row(race, each, list(ours.values())) for each in _in_order(race)]
    failed = [_failed(each) for each in (*race.outcomes, *race.limits) if each.error is not None]
    shapes = list(next((each.grid for each in race.outcomes if each.grid), {}))
    calls = [
        [each.name, each.precision, *(f"{1e3 * statistics.median(each.grid[shape]):.2f}" for shape in shapes)]
        for each in _in_order(race)
        if each.grid
    ]
    parts = [_about(race), "", *_lines(header, [*rows, *failed]), "", "Milliseconds of a call, texts x tokens:", ""]
    return [*parts, *_lines(["", "precision", *shapes], calls)]


def brief_table(race: Race) -> str:
    """The fastest way of every system at each precision: its speed, fidelity, start and memory."""
    ours = _ours(race)
    rows = [
        [
            f"**{each.name}**" if each.name == "encort" else each.name,
            each.precision,
            f"{race.tokens / _seconds(each):,.0f}",
            *(_ratio(mine, each) for mine in ours.values()),
            _known(each.cosine_mean, ".4f"),
            _known(each.load_seconds, ".1f", " s"),
            _known(each.peak_mib, ".0f", " MiB"),
        ]
        for each in _fastest(race)
    ]
    header = ["", "precision", "tokens a second", *(f"encort {name} is" for name in ours)]
    header += ["cosine", "start to first", "memory"]
    return "\n".join([_about(race), "", *_lines(header, rows), "", _source(race)])


def _checked(race: Race) -> list[list[str]]:
    return [
        [
            each.name,
            f"{each.found:.6g}",
            f"at most {each.most:g}" if each.least is None else f"at least {each.least:g}",
            "yes" if each.is_right else "**no**",
        ]
        for each in race.checks
    ]


def _ours(race: Race) -> dict[str, Outcome]:
    return {each.precision: each for each in race.outcomes if each.name == "encort" and each.error is None}


def _in_order(race: Race) -> list[Outcome]:
    measured = sorted((each for each in race.outcomes if each.error is None), key=lambda each: -_seconds(each))
    return [*measured, *(each for each in race.limits if each.error is None)]


def _fastest(race: Race) -> list[Outcome]:
    """One of each peer and precision, the slowest first."""
    best = {(each.key.partition(":")[0], each.precision): each for each in _in_order(race) if each not in race.limits}
    return sorted(best.values(), key=lambda each: -_seconds(each))


def _about(race: Race) -> str:
    rounds = max((len(each.seconds) for each in race.outcomes), default=0)
    machine = race.machine
    if machine.gpu is None:
        where = f"tokenization included, on {machine.cpu} ({', '.join(machine.instruction_sets)})"
    else:
        where = f"tokenization left out, on {machine.gpu}"
    return (
        f"{race.model}, {race.texts} texts of {race.workload}, {race.tokens} tokens, {race.threads} threads each, "
        f"{where}; medians of {rounds} rounds in turn, ratios with intervals of confidence; where 1 lies within, two "
        "are not told apart:"
    )


def _source(race: Race) -> str:
    return f"`{race.command}`, {race.machine.date[:10]}, revision {race.machine.revision}"


def _row(race: Race, system: Outcome, ours: Sequence[Outcome]) -> list[str]:
    if system in race.limits:
        return _limit(race, system, ours)
    spread = f"{_seconds(system):.2f} ({min(system.seconds):.2f}-{max(system.seconds):.2f})"
    cells = [system.name, system.precision, spread, f"{race.tokens / _seconds(system):,.0f}"]
    cells += [_ratio(each, system) for each in ours]
    cosine = "" if system.cosine_mean is None else f"{system.cosine_mean:.5f} / {system.cosine_min:.3f}"
    return [
        *cells,
        cosine,
        _known(system.spearman, ".2f"),
        _known(system.load_seconds, ".1f"),
        _known(system.peak_mib, ".0f"),
    ]


def _limit(race: Race, limit: Outcome, ours: Sequence[Outcome]) -> list[str]:
    """By its fastest round: what the machine can do when nobody disturbs it."""
    best = min(limit.seconds)
    cells = [f"limit: {limit.name}", limit.precision, f"{best:.2f} at best", f"{race.tokens / best:,.0f}"]
    return cells + [f"{best / _seconds(each):.2f}x" for each in ours]


def _known(value: float | None, form: str, unit: str = "") -> str:
    return "" if value is None else f"{value:{form}}{unit}"


def _ratio(ours: Outcome, system: Outcome) -> str:
    return "" if ours is system else str(speed(ours.seconds, system.seconds))


def _failed(system: Outcome) -> list[str]:
    return [system.name, system.precision, f"failed: {_first_line(system.error)}"]


def _seconds(system: Outcome) -> float:
    return statistics.median(system.seconds)


def _first_line(error: str | None) -> str:
    return next(iter((error or "").strip().splitlines()), "").replace("|", "/")


def _lines(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    filled = [[*row, *[""] * (len(header) - len(row))] for row in (header, ["---"] * len(header), *rows)]
    return [f"| {' | '.join(row)} |" for row in filled]


def written(text: str, folder: Path = FOLDER) -> str:
    """A document with its tables as the results give them."""
    return _MARK.sub(lambda mark: f"{mark[1]}{_table(folder / mark['name'], mark['kind'])}\n{mark[4]}", text)


def _table(file: Path, kind: str) -> str:
    result = read(file)
    if not isinstance(result, Race):
        raise InputError(f"{file} is no race")
    return race_table(result) if kind == "race" else brief_table(result)


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
