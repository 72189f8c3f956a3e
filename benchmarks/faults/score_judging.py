"""Many runs through one judge: two at a time, and nothing judged twice."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.faults.score_found import Told
from benchmarks.faults.score_truth import Truth

__all__ = ["Judge", "content_of", "told_of"]

#: Verdicts of so many versions of one judge are kept.
_KEPT = 6


@dataclass(frozen=True)
class Judge:
    """`judge(truth, logs)` judges one run; `version` changes whenever it might say something else.

    `kinds` maps the names of its findings to the kinds that each may stand for, generously; None: they are our kinds.
    """

    name: str
    version: str
    judge: Callable[[Truth, Path], Told]
    kinds: Mapping[str, tuple[str, ...]] | None = None

    def mapped(self, told: Told) -> Told:
        """What was told, each finding with the kinds that it may stand for."""
        found = [
            replace(one, kinds=(one.name,) if self.kinds is None else self.kinds.get(one.name, ()))
            for one in told.found
        ]
        return replace(told, found=tuple(found))


def content_of(path: Path) -> str:
    """A digest of a log: of the file, or of the names and contents of all files of a folder."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file())
    for one in files:
        digest.update(one.relative_to(path.parent).as_posix().encode() + b"\0" + one.read_bytes())
    return digest.hexdigest()[:16]


def told_of(judge: Judge, truths: Sequence[Truth], logs: Path, *, jobs: int = 2, fresh: bool = False) -> list[Told]:
    """What the judge says of each run, in their order. What it said before, of the same log, is taken from the cache.

    The cache lies beside the logs, a file a version. `fresh` judges all anew.
    """
    from joblib import Parallel, delayed

    cache = logs / "cache" / judge.name / f"{judge.version}.jsonl"
    known = {} if fresh else _kept(cache)
    keys = [(truth.id, content_of(logs / truth.path)) for truth in truths]
    open_ = [(truth, key) for truth, key in zip(truths, keys, strict=True) if key not in known]
    cache.parent.mkdir(parents=True, exist_ok=True)
    judged = Parallel(n_jobs=jobs, return_as="generator")(delayed(judge.judge)(truth, logs) for truth, _ in open_)
    with cache.open("a" if not fresh else "w", encoding="utf-8") as file:
        for count, ((_, key), told) in enumerate(zip(open_, judged, strict=True), 1):
            known[key] = told
            file.write(json.dumps([*key, told.to_dict()]) + "\n")
            file.flush()  # a line at a time: two scorings may write here at once
            _progress(judge.name, count, len(open_))
    _forget(cache.parent.glob("*.jsonl"))
    return [judge.mapped(known[key]) for key in keys]


def _kept(cache: Path) -> dict[tuple[str, str], Told]:
    if not cache.exists():
        return {}
    known = {}
    for line in cache.read_text(encoding="utf-8").splitlines():
        try:
            run, content, told = json.loads(line)
        except json.JSONDecodeError:  # the last line of a judging that was ended
            continue
        known[run, content] = Told.of(told)
    return known


def _forget(files: Iterable[Path]) -> None:
    for old in sorted(files, key=lambda one: one.stat().st_mtime, reverse=True)[_KEPT:]:
        old.unlink(missing_ok=True)


def _progress(name: str, count: int, of: int) -> None:
    if count == of or count % 50 == 0:
        print(f"{name}: {count} of {of} runs judged", file=sys.stderr, flush=True)
