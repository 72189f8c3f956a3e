"""What a project says about findings: which kinds count, how severe they are, which are waived until when and why."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from fnmatch import fnmatchcase
from typing import Any

from analysis.check_sources import own_checks
from analysis.findings import SEVERITIES, Finding, NotApplicable, Severity
from analysis.kinds import KINDS, Limit
from analysis.limits import DEFAULT_LIMITS, Limits
from eventstream.errors import InputError, unknown_name

__all__ = ["Rules", "rules_of"]

_KEYS = ("select", "ignore", "severity", "threshold", "waive")
_WAIVER = ("kind", "metric", "run", "reason", "until")


@dataclass(frozen=True, slots=True)
class _Which:
    """Some findings: of some kinds, about metrics and runs that fit a glob."""

    kinds: frozenset[str]
    metric: str = "*"
    run: str = "*"

    def fits(self, finding: Finding) -> bool:
        """Whether a finding is among them; one about the whole run fits no glob of metrics but `*`."""
        told = self.metric == "*" or (finding.metric is not None and fnmatchcase(finding.metric, self.metric))
        return finding.kind in self.kinds and told and fnmatchcase(finding.run, self.run)


@dataclass(frozen=True, slots=True)
class _Waiver:
    which: _Which
    reason: str
    until: date


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules for findings, made by `rules_of`; `where` names the file in sentences.

    `limits` are the thresholds that they set, which `diagnose` hands to every analysis.
    """

    where: str = "the rules given"
    select: frozenset[str] | None = None
    ignore: tuple[_Which, ...] = ()
    severity: tuple[tuple[_Which, Severity], ...] = ()
    waive: tuple[_Waiver, ...] = ()
    limits: Limits = DEFAULT_LIMITS

    def wants(self, kinds: Iterable[str]) -> bool:
        """Whether any of the kinds that a check judges is asked for."""
        return any(self._unwanted(kind) is None for kind in kinds)

    def applied(
        self, findings: Sequence[Finding], judged: Iterable[str], today: date | None = None
    ) -> tuple[list[Finding], list[NotApplicable]]:
        """The findings that count, as severe as the rules say, and the kinds that they leave out.

        The last rule of severity that fits counts. A waived finding stays as information with its reason, until the
        end of the day `until` (UTC); from then on it counts again, and its message says that the waiver has expired.
        """
        now = datetime.now(UTC).date() if today is None else today
        out = {kind: why for kind in judged if (why := self._unwanted(kind)) is not None}
        kept = [f for f in findings if self._unwanted(f.kind) is None and not any(w.fits(f) for w in self.ignore)]
        return [self._judged(f, now) for f in kept], [NotApplicable(kind, why) for kind, why in out.items()]

    def _unwanted(self, kind: str) -> str | None:
        if self.select is not None and kind not in self.select:
            return f"not selected in {self.where}"
        if any(kind in which.kinds and (which.metric, which.run) == ("*", "*") for which in self.ignore):
            return f"ignored in {self.where}"
        return None

    def _judged(self, finding: Finding, today: date) -> Finding:
        for which, severity in self.severity:
            if which.fits(finding):
                finding = replace(finding, severity=severity)
        waiver = next((w for w in self.waive if w.which.fits(finding)), None)
        if waiver is None:
            return finding
        if today > waiver.until:
            return replace(finding, message=f"{finding.message} (its waiver expired on {waiver.until})")
        told = f"{finding.message} (waived until {waiver.until}: {waiver.reason})"
        return replace(finding, severity="info", message=told)


def rules_of(declared: Mapping[str, Any], where: str = "the rules given") -> Rules:
    """Rules out of a mapping, as the table `[findings]` of `aftertrain.toml` has it; `where` names it in errors.

    `select` and `ignore` are lists of kinds or families, with `kind:glob` for some metrics only (in `ignore`);
    `severity` maps the same to info, warning, critical or fatal; `threshold` maps kinds, with `kind:glob` for some
    metrics, to the number from which on they are reported, in the unit of the kind's limit (`analysis.kinds`); of
    `severity` and `threshold` the last entry that fits counts. `waive` is a list of tables with `kind`, `reason` and
    `until` (a date), and globs `metric` and `run`. Raises `InputError` for anything unknown, with the nearest name.

    >>> rules = rules_of({"ignore": ["outlier"], "severity": {"loss-spike:val/*": "info"}})
    >>> spike = Finding("loss-spike", "warning", "a", "up", metric="val/loss")
    >>> [f.severity for f in rules.applied([spike], [])[0]]
    ['info']
    >>> rules_of({"ignore": ["outlyer"]})
    Traceback (most recent call last):
    ...
    eventstream.errors.InputError: the rules given: ignore: unknown kind or family 'outlyer'; did you mean 'outlier'...
    """
    own_checks()  # whose kinds may be named as well
    try:
        for key in declared:
            if key not in _KEYS:
                raise ValueError(unknown_name("key", key, _KEYS))
        chosen = _list(declared, "select")
        return Rules(
            where,
            None if chosen is None else frozenset().union(*(_kinds("select", name) for name in chosen)),
            tuple(_which("ignore", name) for name in _list(declared, "ignore") or ()),
            tuple((_which("severity", k), _severity(k, v)) for k, v in _table(declared, "severity").items()),
            tuple(_waiver(number, one) for number, one in enumerate(_list(declared, "waive") or (), 1)),
            Limits(tuple(_threshold(str(k), v) for k, v in _table(declared, "threshold", "numbers").items())),
        )
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error


def _list(declared: Mapping[str, Any], key: str) -> list[Any] | None:
    value = declared.get(key)
    if value is not None and not isinstance(value, list | tuple):
        raise ValueError(f"{key}: is {value!r}; a list was expected")
    return None if value is None else list(value)


def _table(declared: Mapping[str, Any], key: str, of: str = "severities") -> Mapping[str, Any]:
    value = declared.get(key, {})
    if not isinstance(value, Mapping):
        raise ValueError(f"{key}: is {value!r}; a table of kinds and {of} was expected")
    return value


def _kinds(key: str, name: object) -> frozenset[str]:
    """A kind alone, or all kinds of a family."""
    families = {kind.family for kind in KINDS.values()}
    if name in families:
        return frozenset(k for k, kind in KINDS.items() if kind.family == name)
    if not isinstance(name, str) or name not in KINDS:
        raise ValueError(f"{key}: {unknown_name('kind or family', str(name), [*KINDS, *sorted(families)])}")
    return frozenset((name,))


def _which(key: str, name: object) -> _Which:
    kind, _, metric = str(name).partition(":")
    return _Which(_kinds(key, kind), metric or "*")


def _severity(key: str, value: object) -> Severity:
    if value not in SEVERITIES:
        raise ValueError(f"severity: {key}: {unknown_name('severity', str(value), SEVERITIES)}")
    return value


def _threshold(key: str, value: object) -> tuple[str, str, float]:
    kind, _, metric = key.partition(":")
    limited = {name: one.limit for name, one in KINDS.items() if one.limit is not None}
    if kind not in limited and kind in KINDS:
        raise ValueError(f"threshold: {kind!r} is a matter of fact: no number decides, and none can be set")
    if kind not in limited and kind in {one.family for one in KINDS.values()}:
        raise ValueError(f"threshold: {kind!r} is a family, whose kinds have units of their own; name one kind")
    if kind not in limited:
        raise ValueError(f"threshold: {unknown_name('kind', kind, limited)}")
    return kind, metric or "*", _limit(key, value, limited[kind])


def _limit(key: str, value: object, limit: Limit) -> float:
    side = "at or above" if limit.above else "at or below"
    means = f"{limit.measure}, in {limit.unit}: {side} it a finding is made (default {limit.default:.4g})"
    if isinstance(value, Mapping):
        inner = f"{key}.{next(iter(value), '...')}"
        raise ValueError(f"threshold: {inner} is read as a table in a table; put names with dots in quotes")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"threshold: {key}: is {value!r}; a number was expected, {means}")
    if not limit.lowest < value <= limit.highest:
        most = f" and at most {limit.highest:g}" if limit.highest < math.inf else ""
        raise ValueError(f"threshold: {key}: is {value:g}; it must be above {limit.lowest:g}{most}: {means}")
    return float(value)


def _waiver(number: int, given: object) -> _Waiver:
    place = f"waive, entry {number}"
    if not isinstance(given, Mapping):
        raise ValueError(f"{place}: is {given!r}; a table with {', '.join(_WAIVER)} was expected")
    for key in given:
        if key not in _WAIVER:
            raise ValueError(f"{place}: {unknown_name('key', str(key), _WAIVER)}")
    reason, until = given.get("reason"), given.get("until")
    if not isinstance(reason, str) or not reason.strip():
        raise ValueError(f"{place}: a waiver needs a reason, in words")
    if isinstance(until, datetime):
        until = until.date()
    if not isinstance(until, date):
        raise ValueError(f"{place}: a waiver needs the date until which it holds, as in until = 2027-01-31")
    which = _Which(_kinds(place, given.get("kind")), str(given.get("metric", "*")), str(given.get("run", "*")))
    return _Waiver(which, reason.strip(), until)
