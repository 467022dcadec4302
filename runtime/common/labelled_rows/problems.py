"""Everything that is wrong with labelled data, collected."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from encort.runtime.common.errors import DatasetError

MAX_SHOWN_ROWS = 20


@dataclass(kw_only=True)
class Problems:
    """Everything that is wrong with labelled data, collected so that it is told at once.

    Attributes:
        use: What is done with the data, for the first line of the message.
        option: Option that names a column, for messages.
    """

    use: Literal["trained", "evaluated"] = "trained"
    option: str = "--column"
    _rows: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    _other: list[str] = field(default_factory=list)

    def add(self, problem: str) -> None:
        """Add a problem that does not belong to a row."""
        self._other.append(problem)

    def add_row(self, name: str, number: int, *problems: str) -> None:
        """Add problems of one row.

        Args:
            name: Name of the file or split.
            number: Number of the row, from 1.
            problems: Problems; a problem has the same words in every row.
        """
        for problem in problems:
            self._rows[f"{name}: {problem}"].append(number)

    def __bool__(self) -> bool:
        """Return whether there is any problem."""
        return bool(self._rows or self._other)

    def check(self) -> None:
        """Refuse the data if there is any problem.

        Raises:
            DatasetError: With all problems, one a line.
        """
        lines = [*self._other, *(f"{problem}: {_show_rows(numbers)}" for problem, numbers in self._rows.items())]
        if lines:
            raise DatasetError(f"this cannot be {self.use} on:\n  " + "\n  ".join(lines))


def _show_rows(numbers: Sequence[int]) -> str:
    more = len(numbers) - MAX_SHOWN_ROWS
    shown = ", ".join(map(str, numbers[:MAX_SHOWN_ROWS]))
    return f"row{'s' if len(numbers) > 1 else ''} {shown}{f' and {more} more' if more > 0 else ''}"
