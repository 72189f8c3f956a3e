"""A self-test as text: what would have been caught, from which size on, what would not, and what the log lacks."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from aftertrain.render import grid, markdown_table, markdown_text, printable

if TYPE_CHECKING:
    from analysis.selftest import SelfTest

__all__ = ["SELFTESTS"]

_COLUMNS = ("kind", "found", "from", "at its default", "delay", "besides")


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.3g}"


def _size(value: float | None, row: dict[str, Any]) -> str:
    """A size with its unit; nothing for a fault without one, a dash where none was found."""
    if not row["unit"]:
        return ""
    return "-" if value is None else f"{_number(value)} {row['unit']}"


def _found(row: dict[str, Any]) -> str:
    if not row["default_size_found"]:
        return "MISSED"
    return "everywhere" if row["found_at"] == 1 else f"at {row['found_at']:.0%} of the places"


def _rows(tested: SelfTest) -> list[list[str]]:
    """Those that can be planted, one row each: the missed ones last."""
    planted = tested.frame.filter(tested.frame["not_injectable"] == "").sort(
        "default_size_found", descending=True, maintain_order=True
    )
    return [
        [
            row["kind"],
            _found(row),
            _size(row["smallest_found"], row),
            _number(row["default_size"]),
            "" if row["delay"] is None else f"{row['delay']:.1%} of the run",
            f"not judged: {printable(row['not_judged'])}" if row["not_judged"] else ", ".join(row["said_instead"]),
        ]
        for row in planted.iter_rows(named=True)
    ]


def _basis(tested: SelfTest) -> str:
    if tested.basis == "healthy":
        return "as it is, the run is healthy"
    kinds = ", ".join(tested.basis_kinds)
    return f"as it is, the run is {tested.basis} ({kinds}): a poor basis, in which further faults are harder to tell"


def _unseen(tested: SelfTest) -> list[tuple[str, list[str]]]:
    """Reasons with the kinds that they rule out, in the order of the kinds."""
    reasons: dict[str, list[str]] = {}
    for kind, reason in tested.unseen.select("kind", "not_injectable").iter_rows():
        said = reason.removeprefix(f"{tested.run}: ").removeprefix(f"{kind} cannot be planted: ")
        reasons.setdefault(said, []).append(kind)
    return list(reasons.items())


def _told(
    tested: SelfTest,
    table: Callable[[Sequence[Sequence[str]], Sequence[str]], str],
    safe: Callable[[str], str],
    bullet: str,
) -> str:
    places = ", ".join(f"{place:g}" for place in tested.judged_at)
    lines = [f"{safe(tested.run)}: {_basis(tested)}", "", f"{tested.summary} (planted at {places})", ""]
    lines += [table(_rows(tested), _COLUMNS)] if tested.caught.height + tested.missed.height else []
    unseen = _unseen(tested)
    lines += ["", "cannot show in this log:", ""] if unseen else []
    lines += [f"{bullet}{', '.join(kinds)}: {safe(reason)}" for reason, kinds in unseen]
    return "\n".join(lines)


def _json(tested: SelfTest) -> str:
    told = {
        "version": 1,
        "run": tested.run,
        "basis": {"status": tested.basis, "kinds": list(tested.basis_kinds)},
        "at": list(tested.judged_at),
        "faults": tested.frame.to_dicts(),
    }
    return json.dumps(told, indent=2, allow_nan=False)


SELFTESTS: dict[str, Callable[[SelfTest], str]] = {
    "table": lambda tested: _told(tested, grid, printable, "  "),
    "markdown": lambda tested: _told(tested, markdown_table, markdown_text, "- "),
    "json": _json,
}
