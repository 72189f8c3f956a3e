"""`checkpoint-corrupt` and `checkpoint-unsafe`: what of a checkpoint cannot be read, and what must not be run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from analysis.findings import Finding, Severity
from analysis.gradient.scene import some
from analysis.kinds import KINDS
from analysis.weights.saved import Saved
from parsers.checkpoints.checkpoint import Damage, UnsafeCall
from parsers.checkpoints.links import NO_FILE

__all__ = ["corrupt", "unsafe"]

#: Files beside a model: a training can be resumed, or a model used, without them.
_BESIDE = re.compile(r"(rng_state|scheduler|scaler|trainer_state|training_args|random_states|\.json$)")
#: Members of an object that lead to code, whatever it is: an attribute that is only looked up is a way to them.
_HIDDEN_WAY = re.compile(r"__\w+__|\b(system|popen|exec|eval|spawn|fork|remove|rmtree)\b")


def corrupt(saved: Saved, run_name: str) -> list[Finding]:
    """One finding about all damage of a checkpoint: critical where weights or optimizer are concerned.

    What is not supported here (`Damage.unsupported`) is information: nothing is wrong with the file.
    """
    broken = [one for one in saved.checkpoint.damage if not one.unsupported]
    damage = broken or list(saved.checkpoint.damage)
    if not damage:
        return []
    grave = [one for one in broken if not _BESIDE.search(one.file.name)]
    told = (grave or damage)[0]
    read, files = len(saved.checkpoint.tensors), sorted({one.file.name for one in damage})
    more = f"; {_places(len(damage) - 1)} damaged" if len(damage) > 1 else ""
    kind = KINDS["checkpoint-corrupt"]
    return [
        Finding(
            "checkpoint-corrupt",
            "critical" if grave else "warning" if broken else "info",
            run_name,
            f"{saved.where}: {_in_file(saved, told.file)}{told.where}: {told.reason}{more}; {_read(read)}",
            first_step=saved.at,
            last_step=saved.at,
            evidence={
                "what": f"damage of {told.file.name}",
                "save": saved.name,
                "file": told.file.name,
                "place": told.where,
                "reason": told.reason,
                "damaged_places": len(damage),
                "damaged_files": some(files, 8),
                "tensors_read": read,
            },
            causes=_causes_of_damage(told, kind.causes) if broken else ("it holds what is not read here",),
            suggestions=kind.suggestions if broken else ("judge this part with the library that wrote it",),
        )
    ]


def _places(count: int) -> str:
    return "1 more place is" if count == 1 else f"{count:,} more places are"


def _in_file(saved: Saved, file: Path) -> str:
    """The file within a save of several; nothing where the save is that file."""
    return "" if Path(saved.name).name == file.name else f"{file.name}, "


def _read(tensors: int) -> str:
    said = f"{tensors:,} tensor{'' if tensors == 1 else 's'}" if tensors else "no tensor"
    return f"{said} could be read"


def _causes_of_damage(told: Damage, causes: Sequence[str]) -> tuple[str, ...]:
    """The causes of the kind, that which the damage itself names first."""
    if NO_FILE in told.reason:
        return ("something else was made under the name of a file: by hand, or by a program that streams through it",)
    words = f"{told.where} {told.reason}".lower()
    signs = (("end", "trunc", "short", "beyond", "ends"), ("missing", "no such", "not there", "index"), ("overlap",))
    first = next((n for n, some_words in enumerate(signs) if any(word in words for word in some_words)), 0)
    return (causes[first], *(cause for n, cause in enumerate(causes) if n != first))


def unsafe(saved: Saved, run_name: str) -> list[Finding]:
    """What the pickles of a checkpoint would call: critical for what runs code, information for unknown classes.

    Every Lightning checkpoint with hyper-parameters of its own classes and every `training_args.bin` of Hugging Face
    names classes that no list can know: these say what has to be trusted, and are no fault.
    """
    calls = saved.checkpoint.unsafe
    dangerous = [call for call in calls if _is_dangerous(call)]
    unknown = [call for call in calls if not _is_dangerous(call)]
    found = [_finding_of_danger(saved, run_name, dangerous)] if dangerous else []
    return [*found, _finding_of_classes(saved, run_name, unknown)] if unknown else found


def _is_dangerous(call: UnsafeCall) -> bool:
    """As the reader says, but for the lookup of an attribute of an object, by which enumerations are pickled too."""
    if call.name in ("builtins.getattr", "__builtin__.getattr"):
        return _HIDDEN_WAY.search(call.arguments) is not None
    return call.risk == "dangerous"


def _finding_of_danger(saved: Saved, run_name: str, calls: list[UnsafeCall]) -> Finding:
    """Critical where something dangerous would be called, a warning where it is only named."""
    told = next((call for call in calls if call.arguments), calls[0])
    kind = KINDS["checkpoint-unsafe"]
    would = f"call {told.name} with {told.arguments}" if told.arguments else f"load {told.name}"
    return Finding(
        "checkpoint-unsafe",
        "critical" if told.arguments else "warning",
        run_name,
        f"{saved.where}: {_in_file(saved, told.file)}opened with torch.load or pickle, would {would}; "
        "nothing was called here",
        first_step=saved.at,
        last_step=saved.at,
        evidence=_evidence(saved, calls, told) | {"what": f"calls of {told.name}", "arguments": told.arguments},
        causes=kind.causes[:2],
        suggestions=kind.suggestions,
    )


def _finding_of_classes(saved: Saved, run_name: str, calls: list[UnsafeCall]) -> Finding:
    names = list(dict.fromkeys(call.name for call in calls))
    packages = list(dict.fromkeys(name.split(".")[0] for name in names))
    kind = KINDS["checkpoint-unsafe"]
    severity: Severity = "info"
    return Finding(
        "checkpoint-unsafe",
        severity,
        run_name,
        f"{saved.where}: {_in_file(saved, calls[0].file)}names {len(names)} classes or functions that a safe opening "
        f"(weights_only=True) refuses, of {some(packages)}: {some(names, 3)}",
        first_step=saved.at,
        last_step=saved.at,
        evidence=_evidence(saved, calls, calls[0]) | {"what": "unknown classes", "packages": some(packages, 8)},
        causes=kind.causes[2:],
        suggestions=kind.suggestions,
    )


def _evidence(saved: Saved, calls: list[UnsafeCall], told: UnsafeCall) -> dict[str, str | int]:
    return {
        "save": saved.name,
        "file": told.file.name,
        "member": told.member,
        "callable": told.name,
        "calls": len(calls),
        "callables": some(dict.fromkeys(call.name for call in calls), 8),
    }
