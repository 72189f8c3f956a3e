"""Checks of a user's own: a decorated function that finds a kind of its own in a run, beside ours in a diagnosis."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, TypeVar

import polars as pl

from analysis.findings import Finding, NotApplicable, findings_frame
from analysis.kinds import KINDS, Kind, Limit
from analysis.limits import DEFAULT_LIMITS, Limits, Measure
from analysis.result import Result
from eventstream.errors import unknown_name
from parsers.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["CheckResult", "CustomCheck", "check", "forget", "registered"]

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
Function = TypeVar("Function", bound=Callable[..., Any])
_registered: dict[str, CustomCheck] = {}


@dataclass(frozen=True, eq=False, repr=False)
class CheckResult(Result):
    """What a check of the user's own found. `frame` has a row a finding (`analysis.findings.findings_frame`)."""

    source: Run

    def plot(self, ax: Axes | None = None, **options: Any) -> Axes:
        """The run's main loss over steps with each finding's span shaded; `options` go to the loss line."""
        from analysis.timeline import draw_timeline

        return draw_timeline(self.source, self.findings, ax, **options)


@dataclass(frozen=True, slots=True)
class CustomCheck:
    """A function of the user's that judges one kind, as `diagnose` runs it; made by `check`.

    `where` names the function in sentences; `needs` are roles, or names and globs of metrics, without which it is not
    called.
    """

    name: str
    where: str
    needs: tuple[str, ...]
    function: Callable[..., Any] = field(repr=False)
    takes_limits: bool = False

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kind that it judges, alone."""
        return (self.name,)

    @property
    def also(self) -> tuple[str, ...]:
        """Kinds of other checks that it judges too: none."""
        return ()

    def __call__(self, run: Run, limits: Limits = DEFAULT_LIMITS) -> CheckResult:
        """What the function finds in `run`. Whatever it raises is told in the result, and stops nothing."""
        missing = [name for name in self.needs if not _has(run, name)]
        if missing:
            reason = f"the check needs {', '.join(missing)}, and no series of this log is taken for it"
            return self._result(run, (), NotApplicable(self.name, reason))
        told: list[Any] = []
        failure = self._fill(told, run, limits)
        findings = tuple(one for one in told if isinstance(one, Finding))
        reasons = [one for one in told if isinstance(one, NotApplicable)]
        if failure and findings:
            stopped = f"the check {self.where} stopped before its end: {failure}"
            findings += (Finding(self.name, "info", run.name, stopped, evidence={"findings_before": len(findings)}),)
        elif failure:
            reasons = [NotApplicable(self.name, f"the check {self.where} failed: {failure}")]
        measures = tuple(one for one in told if isinstance(one, Measure))
        return self._result(run, findings, None if findings or not reasons else reasons[0], measures)

    def _fill(self, told: list[Any], run: Run, limits: Limits) -> str:
        """Put what the function says into `told`; what went wrong, in words."""
        try:
            given = self.function(run, limits=limits) if self.takes_limits else self.function(run)
            for one in (given,) if isinstance(given, Finding | NotApplicable | Measure) else given or ():
                if not isinstance(one, Finding | NotApplicable | Measure):
                    return f"it gave a {type(one).__name__}, not a Finding, a NotApplicable or a Measure"
                if one.kind != self.name:
                    return f"it spoke of {one.kind!r}, which is not its kind"
                told.append(one)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a user's code may raise anything, and must not stop the rest
            return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')[:200]}{_line(error)}"
        return ""

    def _result(
        self, run: Run, findings: tuple[Finding, ...], reason: NotApplicable | None, measures: tuple[Measure, ...] = ()
    ) -> CheckResult:
        frame: pl.DataFrame = findings_frame(findings)
        reasons = () if reason is None else (reason,)
        return CheckResult(run.name, frame, findings=findings, not_applicable=reasons, measures=measures, source=run)


def check(
    kind: str,
    *,
    family: str,
    meaning: str,
    needs: Iterable[str] = (),
    limit: Limit | None = None,
    causes: Iterable[str] = (),
    suggestions: Iterable[str] = (),
    reference: str = "",
) -> Callable[[Function], Function]:
    """A decorator that makes a function a check: `diagnose`, rules, reports and JSON then know its kind like ours.

    The function takes the run (and `limits`, if it names such an argument: `limits.of(kind, metric)` is the number in
    force) and yields, or returns, `Finding` objects of its kind; `NotApplicable` says why it cannot judge, `Measure`
    how near the run came to the limit. `kind` is lower case with hyphens and must be new; `family` is one of ours;
    `meaning` says in one sentence what is found. `needs` are roles (`loss`, `grad_norm`: `parsers.naming.roles.ROLES`)
    or names and globs of metrics: without one of them the function is not called, and the kind is not applicable. A
    `limit` lets projects set a threshold (`[findings.threshold]`) and norms be learned.

    An error in the function, whatever it is, becomes a reason in the result, which names it. What is wrong with the
    registration itself raises `ValueError`: a kind that is known already (one's own function may be defined again,
    as in a notebook), an unknown family, an empty meaning, or a function that cannot be called with a run alone.

    >>> @check("loss-negative", family="numbers", meaning="the loss is below zero", needs=("loss",))
    ... def negative(run):
    ...     low = run.series(run.roles["train_loss"].metric)["value"].min()
    ...     if low < 0:
    ...         yield Finding("loss-negative", "warning", run.name, f"the loss falls to {low}", evidence={"low": low})
    >>> from parsers.finish import finish
    >>> rows = pl.DataFrame({"tag": ["loss"] * 3, "step": [1, 2, 3], "value": [1.0, 0.5, -0.5]})
    >>> print(registered()["loss-negative"](finish("r", "r", "jsonl", rows)).findings[0].message)
    the loss falls to -0.5
    >>> forget("loss-negative")
    """
    families = list(dict.fromkeys(one.family for one in KINDS.values()))
    wanted = (needs,) if isinstance(needs, str) else tuple(needs)
    if not isinstance(kind, str) or not _NAME.fullmatch(kind):
        raise ValueError(f"kind is {kind!r}; a name in lower case with hyphens was expected, as in 'grad-noise'")
    if family not in families:
        raise ValueError(unknown_name("family", str(family), families))
    if limit is not None and not isinstance(limit, Limit):
        raise ValueError(f"kind {kind!r}: limit is {limit!r}; at.Limit(measure, default, unit, source) was expected")
    if not meaning.strip():
        raise ValueError(f"kind {kind!r} needs a meaning: one sentence that says what is found")

    def register(function: Function) -> Function:
        made = CustomCheck(kind, _where(function), wanted, function, _signature(kind, function))
        former = _registered.get(kind)
        if kind in KINDS and (former is None or former.where != made.where):
            owner = "aftertrain's own" if former is None else f"that of {former.where}"
            raise ValueError(f"kind {kind!r} of {made.where} is {owner} already; give yours another name")
        statistic = f"the function {made.where}"
        asked = ", ".join(wanted)
        KINDS[kind] = Kind(
            family, meaning, asked, statistic, "", limit, tuple(causes), tuple(suggestions), reference
        )  # fmt: skip
        _registered[kind] = made
        return function

    return register


def registered() -> dict[str, CustomCheck]:
    """The checks registered so far, by kind."""
    return dict(_registered)


def forget(kind: str) -> None:
    """Take a check of the user's own out again. Raises `ValueError` for a kind that is none."""
    if kind not in _registered:
        raise ValueError(unknown_name("kind of an own check", kind, _registered))
    del _registered[kind], KINDS[kind]


def _where(function: Callable[..., Any]) -> str:
    module, name = getattr(function, "__module__", "?"), getattr(function, "__qualname__", repr(function))
    return f"{module}.{name}"


def _signature(kind: str, function: Callable[..., Any]) -> bool:
    """Whether a function takes limits; `ValueError` for one that cannot be a check."""
    if not callable(function) or inspect.isclass(function):
        raise ValueError(f"kind {kind!r}: a function was expected, not {function!r}")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise ValueError(f"kind {kind!r}: {_where(function)} is asynchronous; a plain function was expected")
    signature = inspect.signature(function)
    takes = "limits" in signature.parameters
    try:
        signature.bind(None, limits=None) if takes else signature.bind(None)
    except TypeError as error:
        raise ValueError(
            f"kind {kind!r}: {_where(function)}{signature} cannot be called with a run alone ({error}); "
            "its form is def name(run), or def name(run, limits)"
        ) from error
    return takes


def _has(run: Run, need: str) -> bool:
    """Whether a run has a series of a role, or a metric that fits a glob."""
    try:
        return run.roles[need].tag is not None
    except KeyError:
        return any(fnmatchcase(metric, need) for metric in run.metrics)


def _line(error: BaseException) -> str:
    """Where in the user's file an error arose."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f" (line {trace.tb_lineno} of {trace.tb_frame.f_code.co_filename})"
