"""Required inputs that some events of a stage hold and others lack: from which batch on, and in how many."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from analysis.findings import Finding

__all__ = ["Attendance"]


@dataclass(frozen=True, slots=True)
class _Batches:
    """Events alike in content: what they held or reported on, and when."""

    names: frozenset[str]
    first: int | None
    last: int | None
    count: int


@dataclass
class Attendance:
    """Which inputs the events of each stage held, per split; events that held nothing at all are left out.

    >>> seen = Attendance()
    >>> seen.add("train", "forward", ["ids", "mask"], 1, 40, 40)
    >>> seen.add("train", "forward", ["ids"], 41, 50, 10)
    >>> [(f.kind, f.severity, f.first_step) for f in seen.findings("r", {"forward": (["ids", "mask"], [])})]
    [('missing-input', 'warning', 41)]
    """

    held: dict[tuple[str, str], list[_Batches]] = field(default_factory=dict)

    def add(
        self, split: str, stage: str, names: Iterable[str], first: int | None, last: int | None, count: int
    ) -> None:
        """So many events alike, with the tensors that they held or gave a status of."""
        known = frozenset(names)
        if known:  # a callback that was handed nothing says nothing of the batch
            self.held.setdefault((split, stage), []).append(_Batches(known, first, last, count))

    def findings(self, run: str, rules: Mapping[str, tuple[Sequence[str], Sequence[str]]]) -> list[Finding]:
        """One finding for each required input that one split of a stage held at times and at times did not.

        A split that never held it is no case: what evaluation is not given may be meant, and an input that no event of
        the stage holds is judged elsewhere.
        """
        return [
            finding
            for (split, stage), batches in self.held.items()
            for name in rules.get(stage, ((), ()))[0]
            for finding in _judge(run, split, stage, name, batches)
        ]


def _judge(run: str, split: str, stage: str, name: str, batches: Sequence[_Batches]) -> list[Finding]:
    without = [one for one in batches if not any(fnmatchcase(held, name) for held in one.names)]
    total, lacking = sum(one.count for one in batches), sum(one.count for one in without)
    if not 0 < lacking < total:
        return []
    first = min((one.first for one in without if one.first is not None), default=None)
    last = max((one.last for one in without if one.last is not None), default=None)
    at = "" if first is None else f", first at step {first}"
    return [
        Finding(
            "missing-input",
            "critical" if lacking > total / 2 else "warning",
            run,
            f"required input {f'{name!r} of stage {stage!r}' if stage else repr(name)} is lacking in {lacking} of "
            f"{total} {split + ' ' if split else ''}events of that stage{at}",
            metric=name,
            first_step=first,
            last_step=last,
            evidence={"stage": stage, "split": split or None, "seen": total - lacking, "lacking": lacking},
            causes=(
                "some batches come without it: an optional field of the data, a branch of the collate function "
                "(seen, lacking)",
                "the source of the data changed during the run, at a phase or an epoch (first step)",
            ),
            suggestions=(
                f"look at one batch that lacks {name!r}{at}",
                "let the collate function refuse a batch without it, or take it from what the plan requires",
            ),
        )
    ]
