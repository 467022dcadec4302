"""Queued rows of one kind, which can share runs."""

import math
from collections import deque

from encort.runtime.serving.requests import WaitingRow


class WaitingRows:
    """The queued rows of one kind, the oldest first. Rows that together fill a run wait no longer.

    Attributes:
        rows: The rows.
        tokens: Sum of their tokens.
        filled_at: Time at which they last filled a run; rows that had arrived by then are due.
    """

    def __init__(self) -> None:
        self.rows: deque[WaitingRow] = deque()
        self.tokens = 0
        self.filled_at = -math.inf

    def append(self, row: WaitingRow, *, run_tokens: int) -> None:
        """Queue a row at the end; `run_tokens` are the most tokens of a run."""
        self.rows.append(row)
        self.tokens += row.tokens
        if self.tokens >= run_tokens:
            self.filled_at = row.arrived

    def popleft(self) -> WaitingRow:
        """Take the oldest row."""
        row = self.rows.popleft()
        self.tokens -= row.tokens
        return row

    def remove(self, row: WaitingRow) -> None:
        """Take a row from among the others."""
        self.rows.remove(row)
        self.tokens -= row.tokens

    def count_again(self) -> None:
        """Restore the sum after an interrupt in the middle of a change."""
        self.tokens = sum(row.tokens for row in self.rows)

    @property
    def arrived(self) -> float:
        """Time at which the oldest row was queued."""
        return self.rows[0].arrived

    @property
    def due(self) -> float:
        """Time until which the oldest row waits for others."""
        first = self.rows[0]
        return first.arrived if first.arrived <= self.filled_at else first.due
