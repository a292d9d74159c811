"""Aligned text for people: rows under headings, and pairs of a label and its value."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from modelclient.ctl.output import printable

GAP = "  "


def line(*cells: object) -> str:
    """One line of text that comes from a peer."""
    return GAP.join(map(printable, cells)) + "\n"


def columns(headings: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()) -> str:
    """A table. The columns named in `right` are numbers and end flush; nothing is cut, however long."""
    lines = [tuple(headings), *(tuple(printable(cell) for cell in row) for row in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(headings))]
    made = []
    for line in lines:
        cells = [
            cell.rjust(width) if heading in right else cell.ljust(width)
            for cell, width, heading in zip(line, widths, headings, strict=True)
        ]
        made.append(GAP.join(cells).rstrip())
    return "\n".join(made) + "\n"


def pairs(rows: Iterable[tuple[str, str | None]]) -> str:
    """Labels on the left, their values on the right; an empty value leaves out its line."""
    shown = [(label, printable(text)) for label, text in rows if text]
    width = max((len(label) for label, _ in shown), default=0)
    return "".join(f"{label.ljust(width)}{GAP}{text}\n" for label, text in shown)
