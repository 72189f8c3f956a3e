"""A plan that the user gives: a TOML (or JSON, or YAML) file, or a mapping."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eventstream.errors import InputError, PlanError
from parsers.content.jsontext import UnreadableError, parse_line
from parsers.content.yamltext import UnreadableYamlError, parse_yaml
from parsers.plan import PLAN_KEYS, Plan, is_other

__all__ = ["GivenPlan", "checked_plan", "plan_of"]

#: Larger than any plan that a person writes.
LIMIT = 4 << 20
#: A plan as a caller gives it: a mapping, or the file that holds one.
GivenPlan = Mapping[str, Any] | Path | str


def plan_of(given: GivenPlan) -> tuple[Mapping[str, Any], str]:
    """The plan and what it was read from: a mapping is `plan`, a file has its name; a table `[plan]` is the plan.

    Raises `InputError` where the file cannot be read, `PlanError` where a value cannot be meant, with its place.

    >>> plan_of({"max_steps": 0})
    Traceback (most recent call last):
    ...
    eventstream.errors.PlanError: plan.max_steps: expected a whole number above 0, found 0
    """
    if isinstance(given, Mapping):
        return checked_plan(given, "plan"), "plan"
    if not isinstance(given, str | Path):
        raise PlanError(f"plan: expected a mapping or the path of a .toml, .json or .yaml file, found {given!r:.80}")
    path = Path(given)
    content = _read(path)
    inner = content.get("plan") if isinstance(content, Mapping) else None
    content = inner if isinstance(inner, Mapping) else content
    if not isinstance(content, Mapping):
        raise PlanError(f"{path}: expected names and values, found {content!r:.80}")
    return checked_plan(content, str(path)), path.name


def checked_plan(plan: Mapping[str, Any], source: str) -> Mapping[str, Any]:
    """`plan` itself, where `Plan` can be made of what it says under its own names; else `PlanError` with the source."""
    if not isinstance(plan, Mapping):
        raise PlanError(f"{source}: expected names and values, found {plan!r:.80}")
    try:
        Plan.from_mapping({key: value for key, value in plan.items() if key in PLAN_KEYS and not is_other(key, value)})
    except PlanError as error:
        raise PlanError(str(error) if source == "plan" else f"{source}: {error}") from error
    return plan


def _read(path: Path) -> Any:
    try:
        if path.stat().st_size > LIMIT:
            raise InputError(f"{path}: more than {LIMIT:,} bytes, which no plan has")
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: the plan cannot be read ({error.strerror})") from error
    try:
        if path.suffix == ".json":
            return parse_line(data)[0]
        if path.suffix in (".yaml", ".yml"):
            return parse_yaml(data)
        return tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, UnreadableError, UnreadableYamlError, RecursionError) as error:
        raise InputError(
            f"{path}: the plan is not {path.suffix[1:].upper() or 'TOML'} that can be read ({error})"
        ) from error
