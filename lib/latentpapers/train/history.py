"""The record of a training: one row of averaged terms per interval."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class History:
    """Rows of (step, averages of every term since the row before).

    Attributes:
        terms: names, in the order in which the task logged them.
        rows: one list a row: step, then one float a term, None where it was not logged.
    """

    terms: list[str] = field(default_factory=list)
    rows: list[list[float | None]] = field(default_factory=list)

    def add(self, step: int, values: dict[str, float]) -> None:
        """Appends the averages up to `step`."""
        new = [t for t in values if t not in self.terms]
        self.terms = [*self.terms, *new]
        self.rows = [row + [None] * len(new) for row in self.rows] if new else self.rows
        self.rows.append([step, *(values.get(t) for t in self.terms)])

    def column(self, term: str) -> list[float | None]:
        """One term over time; None in rows without it."""
        index = self.terms.index(term) + 1
        return [row[index] for row in self.rows]

    def steps(self) -> list[int]:
        """The steps of the rows."""
        return [int(row[0]) for row in self.rows]

    def state_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"terms": self.terms, "rows": self.rows}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "History":
        """The inverse of `state_dict`."""
        return cls(list(state["terms"]), [list(row) for row in state["rows"]])
