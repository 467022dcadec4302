"""Write the tables of the documents from the results, so that nobody types a number.

    python -m encort.benchmarks.race.tables            writes the tables of README.md and docs/*.md
    python -m encort.benchmarks.race.tables --check    says whether they are those of the results

A document marks a table with `<!-- race: NAME.json -->` (everything that the race measured) or with
`<!-- brief: NAME.json -->` (the fastest settings of each system); the table ends at `<!-- end -->`.
"""

import re
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from encort.benchmarks.command_help import command_help
from encort.benchmarks.results import FOLDER, Outcome, Race, read
from encort.benchmarks.timing import speedup
from encort.runtime.common.errors import InputError
from encort.runtime.common.output.markdown import Markdown, table
from encort.runtime.common.output.terminal import echo

ROOT = Path(__file__).resolve().parents[2]
_MARK = re.compile(r"(<!-- (?P<kind>race|brief): (?P<name>\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def race_table(race: Race) -> str:
    """Return one row per system, the slowest first and the machine's limits last; a table of calls; and the checks."""
    parts = _speed_tables(race) if race.outcomes else [f"{race.model}, on {race.machine.gpu or race.machine.cpu}."]
    if race.checks:
        header = ["check", "value", "bound", "passed"]
        parts += ["", "Checks of encort's results:", "", *table(header, _check_rows(race))]
    return "\n".join([*parts, "", _source(race)])


def _speed_tables(race: Race) -> list[str]:
    ours = _ours(race)
    header = ["system", "precision", "seconds (min-max)", "tokens/s", *(f"speedup of encort {name}" for name in ours)]
    header += ["cosine, mean / min", "STS-B", "start to first result, s", "peak MiB"]
    rows = [_row(race, outcome, list(ours.values())) for outcome in _slowest_first(race)]
    failed = [_failed_row(outcome) for outcome in (*race.outcomes, *race.limits) if outcome.error is not None]
    shapes = list(next((outcome.grid for outcome in race.outcomes if outcome.grid), {}))
    calls = [
        [outcome.name, outcome.precision, *(f"{1e3 * statistics.median(outcome.grid[shape]):.2f}" for shape in shapes)]
        for outcome in _slowest_first(race)
        if outcome.grid
    ]
    parts = [_about(race), "", *table(header, [*rows, *failed]), "", "Milliseconds per call, by texts x tokens:", ""]
    return [*parts, *table(["system", "precision", *shapes], calls)]


def brief_table(race: Race) -> str:
    """Return one row for each peer and precision, with its fastest settings: speed, fidelity, start and memory."""
    ours = _ours(race)
    rows = [
        [
            Markdown(f"**{outcome.name}**") if outcome.name == "encort" else outcome.name,
            outcome.precision,
            f"{race.tokens / _seconds(outcome):,.0f}",
            *(_speedup(own, outcome) for own in ours.values()),
            _format(outcome.cosine_mean, ".4f"),
            _format(outcome.load_seconds, ".1f", " s"),
            _format(outcome.peak_mib, ".0f", " MiB"),
        ]
        for outcome in _fastest(race)
    ]
    header = ["system", "precision", "tokens/s", *(f"speedup of encort {name}" for name in ours)]
    header += ["cosine", "start to first result", "peak memory"]
    return "\n".join([_about(race), "", *table(header, rows), "", _source(race)])


def _check_rows(race: Race) -> list[list[str]]:
    return [
        [
            check.name,
            f"{check.value:.6g}",
            f"at most {check.most:g}" if check.least is None else f"at least {check.least:g}",
            "yes" if check.passed else Markdown("**no**"),
        ]
        for check in race.checks
    ]


def _ours(race: Race) -> dict[str, Outcome]:
    """Return encort's own outcomes by precision."""
    return {
        outcome.precision: outcome for outcome in race.outcomes if outcome.name == "encort" and outcome.error is None
    }


def _slowest_first(race: Race) -> list[Outcome]:
    """Return the systems that did not fail, the slowest first, and then the limits."""
    measured = [outcome for outcome in race.outcomes if outcome.error is None]
    limits = [limit for limit in race.limits if limit.error is None]
    return [*sorted(measured, key=_seconds, reverse=True), *limits]


def _fastest(race: Race) -> list[Outcome]:
    """Return the fastest outcome of each peer and precision, the slowest first."""
    systems = [outcome for outcome in _slowest_first(race) if outcome not in race.limits]
    # A later outcome is faster, and replaces an earlier one.
    fastest = {(outcome.key.partition(":")[0], outcome.precision): outcome for outcome in systems}
    return sorted(fastest.values(), key=_seconds, reverse=True)


def _about(race: Race) -> str:
    rounds = max((len(outcome.seconds) for outcome in race.outcomes), default=0)
    machine = race.machine
    if machine.gpu is None:
        where = f"tokenization included, on {machine.cpu} ({', '.join(machine.instruction_sets)})"
    else:
        where = f"tokenization not included, on {machine.gpu}"
    return (
        f"{race.model}, {race.texts} texts ({race.workload}), {race.tokens} tokens, {race.threads} threads per system, "
        f"{where}. Medians of {rounds} rounds, systems in turn. A speedup of 2x means that encort takes half the time "
        "of the system in the row. Brackets hold the interval of confidence; one that contains 1 shows no difference:"
    )


def _source(race: Race) -> str:
    return f"`{race.command}`, {race.machine.date[:10]}, revision {race.machine.revision}"


def _row(race: Race, system: Outcome, ours: Sequence[Outcome]) -> list[str]:
    if system in race.limits:
        return _limit_row(race, system, ours)
    spread = f"{_seconds(system):.2f} ({min(system.seconds):.2f}-{max(system.seconds):.2f})"
    cells = [system.name, system.precision, spread, f"{race.tokens / _seconds(system):,.0f}"]
    cells += [_speedup(own, system) for own in ours]
    cosine = "" if system.cosine_mean is None else f"{system.cosine_mean:.5f} / {system.cosine_min:.3f}"
    return [
        *cells,
        cosine,
        _format(system.spearman, ".2f"),
        _format(system.load_seconds, ".1f"),
        _format(system.peak_mib, ".0f"),
    ]


def _limit_row(race: Race, limit: Outcome, ours: Sequence[Outcome]) -> list[str]:
    """Return a row by the fastest round, which other programs on the machine disturbed least."""
    best = min(limit.seconds)
    cells = [f"limit: {limit.name}", limit.precision, f"{best:.2f} at best", f"{race.tokens / best:,.0f}"]
    return cells + [f"{best / _seconds(own):.2f}x" for own in ours]


def _format(value: float | None, spec: str, unit: str = "") -> str:
    return "" if value is None else f"{value:{spec}}{unit}"


def _speedup(ours: Outcome, system: Outcome) -> str:
    return "" if ours is system else str(speedup(ours.seconds, system.seconds))


def _failed_row(system: Outcome) -> list[str]:
    return [system.name, system.precision, f"failed: {_first_line(system.error)}"]


def _seconds(system: Outcome) -> float:
    return statistics.median(system.seconds)


def _first_line(error: str | None) -> str:
    return next(iter((error or "").strip().splitlines()), "")


def update_tables(text: str, folder: Path = FOLDER) -> str:
    """Return a document with new tables at its marks.

    Args:
        text: The document.
        folder: Folder of the results.

    Raises:
        InputError: A mark names no result of a race.
    """
    return _MARK.sub(lambda mark: f"{mark[1]}{_table(folder / mark['name'], mark['kind'])}\n{mark[4]}", text)


def _table(file: Path, kind: str) -> str:
    result = read(file)
    if not isinstance(result, Race):
        raise InputError(f"{file} is not the result of a race")
    return race_table(result) if kind == "race" else brief_table(result)


@click.command(help=command_help(__doc__))
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 if a table differs from its result.")
def main(check: bool) -> None:
    stale = []
    for file in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        before = file.read_text(encoding="utf-8")
        after = update_tables(before)
        if after != before:
            stale.append(file.relative_to(ROOT))
            if not check:
                file.write_text(after, encoding="utf-8")
    message = "its tables are not those of the results; run this without --check" if check else "written"
    for file in stale:
        echo(f"{file}: {message}")
    sys.exit(1 if check and stale else 0)


if __name__ == "__main__":
    main()
