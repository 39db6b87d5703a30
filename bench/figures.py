"""What was measured, against what was wanted: a line each, for people."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number. `here` and `beside` say what it was made of; `most` or `least` is the target.

    A figure without a target is told because it explains another one.
    """

    part: str
    what: str
    value: float
    unit: str = ""
    here: str = ""
    beside: str = ""
    most: float | None = None
    least: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none."""
        if self.most is not None:
            return self.value <= self.most
        return None if self.least is None else self.value >= self.least

    @property
    def target(self) -> str:
        """The target in words."""
        if self.most is not None:
            return f"≤ {_number(self.most)}{self.unit}"
        return "" if self.least is None else f"≥ {_number(self.least)}{self.unit}"

    def row(self) -> tuple[str, ...]:
        """Return the cells of the table."""
        said = {True: "met", False: "MISSED", None: ""}[self.met]
        return (
            self.part,
            self.what,
            self.here,
            self.beside,
            f"{_number(self.value)}{self.unit}",
            self.target,
            said,
        )


HEAD = ("", "what", "here", "beside it", "figure", "target", "")


def as_text(figures: Iterable[Figure]) -> str:
    """Return the table for a terminal."""
    rows = [HEAD, *(figure.row() for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    return "\n".join(_line(row, widths) for row in rows)


def as_markdown(figures: Iterable[Figure]) -> str:
    """Return the table for a page."""
    lines = [HEAD, ("---",) * len(HEAD), *(figure.row() for figure in figures)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def in_ms(seconds: float) -> str:
    """Say a time in milliseconds."""
    return f"{_number(seconds * 1000)} ms"


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which this share of all values lies (nearest rank); raises on none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _number(value: float) -> str:
    """Say a number with the three digits that matter."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
