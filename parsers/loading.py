"""`load` one run, `load_all` runs of a tree: any path in, `Run` or `RunSet` out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from eventstream.errors import InputError
from parsers.collection.choosing import chosen, short
from parsers.collection.gathering import existing, found_below
from parsers.collection.progress import Progress, shown
from parsers.collection.reading import read_group, with_rejects
from parsers.collection.refusal import nothing_at
from parsers.collection.remembered import remembered
from parsers.collection.run_names import uniquely_named
from parsers.collection.workers import check_workers
from parsers.options import Dialects, Options, options
from parsers.places.place import StrPath
from parsers.plans.given import GivenPlan, plan_of
from parsers.plugins import plugins
from parsers.run import Run, RunSet
from parsers.settings import GivenRoles, given_roles
from parsers.tree import Unread, find_groups

__all__ = ["load", "load_all"]


def load(
    path: StrPath,
    *,
    run: str | None = None,
    roles: GivenRoles | None = None,
    plan: GivenPlan | None = None,
    dialects: Dialects | None = None,
    histograms: bool = False,
) -> Run:
    """The one run at `path`, whatever wrote it.

    `path` is a log file, a run folder, or a folder or archive (.zip, .tar and its packed kinds) that holds exactly one
    run; compressed files (.gz, .zst, .xz, .bz2) are read as what is in them, and URLs through fsspec
    (`memory://`, `s3://`, ...; needs universal-pathlib). Nothing is unpacked to disk. Damage inside the file becomes
    rows of `run.rejects`.

    `run` chooses one of several, by its name, its path (whole, or from `path` on) or its identifier (MLflow). `roles`
    says what series are, `{"energy": "train_loss", "val/*": "eval_loss"}` (see `Run.with_roles`), or is the settings
    file that does (`parsers.settings`); no file is looked for by itself. `plan` is what the run was meant to do, a
    mapping, or a TOML, JSON or YAML file (docs/plan.md), and goes before what the log and its configuration say.
    `dialects` is a TOML file of dialects of text logs (`parsers.text_logs.dialect_toml.from_toml`), or a list of files
    or of `parsers.text_logs.dialect.Dialect`: a text that speaks one of them is read in it. `histograms=True` makes
    scalars of TensorBoard's histograms (`<tag>/min`, `/p50`, `/max`, ...), which are many and seldom asked for.

    Raises `InputError` when there is nothing there, nothing that is a run, or more than one and none is chosen, and
    for a `run` that is not there, with the nearest names.

    >>> load("no/such/run")
    Traceback (most recent call last):
    ...
    eventstream.errors.InputError: no/such/run: no such file or folder
    """
    given = None if plan is None else plan_of(plan)
    found = _one(path, run, options(dialects, histograms=histograms))
    found = found if given is None else found.with_plan(*given)
    return found if roles is None else given_roles(RunSet((found,)), roles).runs[0]


def _one(path: StrPath, run: str | None, how: Options) -> Run:
    root = existing(path)
    unread: Unread = []
    groups = find_groups(root, unread, asked=how.formats)
    if not groups:
        raise InputError(nothing_at(root, unread))
    if run is not None:
        return chosen(root, groups, run)
    if len(groups) > 1:
        raise InputError(_several(root, [format.run or str(place) for group in groups for place, format in group]))
    outcome = read_group(groups[0])
    if not outcome.runs:
        raise outcome.errors[0][1]
    if len(outcome.runs) > 1:
        raise InputError(_several(root, [run.path for run in outcome.runs]))
    return with_rejects(outcome.runs[0], [(where, str(error)) for where, error in outcome.errors])


def _several(root: Path, places: list[str]) -> str:
    names = ", ".join(short(place, root) for place in places[:5])
    return f"{root}: {len(places)} runs here ({names}, ...); name one of them with run=, or use load_all"


def load_all(
    paths: StrPath | Iterable[StrPath],
    *,
    progress: Progress | bool | None = None,
    workers: int | None = None,
    cache: Path | str | bool = True,
    roles: GivenRoles | None = None,
    plan: GivenPlan | None = None,
    dialects: Dialects | None = None,
    histograms: bool = False,
) -> RunSet:
    """Every run below `paths` (one path or several), in order of path; names are made unique by their folders.

    A path given by name that cannot be read raises `InputError`; below a folder or inside an archive, what looks like a
    run and cannot be read is listed in `RunSet.unread` with the reason, and the others are read. `progress=True` shows
    a bar on standard error; a function is called as `progress(done, total, path)` before each log.

    `workers` is the number of processes that read, through joblib: no `__main__` guard is needed, and
    `joblib.parallel_config(backend=...)` sends the work to its other backends (Dask, Ray, Spark). By default this
    process reads alone up to 1,500 logs, and beyond with one process a core: each takes a second to begin, and sends
    back what it read. A few long text logs may gain from it too; long tables do not, whose readers use all cores.

    What was read is kept in the user's cache folder (`parsers.collection.cache.default_folder`), or in the folder
    `cache`, under a key of the content: where nothing changed in a run's folder, below it, or in the configurations of
    the two folders above, the next call reads no log. A run of more than 256 MiB is not kept, all together not more
    than 1 GiB, the last used ones; nor logs given by name, URLs, and tables that stay on disk (long Parquet), which are
    not read before they are asked for. A cache that is damaged or cannot be written is as none; `cache=False` uses
    none.

    `roles`, `plan`, `dialects` and `histograms` are those of `load`; a name in `roles` needs to fit a series of one
    run, and the plan is that of every run.

    >>> load_all([])
    <RunSet: 0 runs>
    """
    check_workers(workers)
    how, given = options(dialects, histograms=histograms), None if plan is None else plan_of(plan)
    gathered = found_below(paths, how, remembered(cache, how))
    with shown(progress, "reading") as told:
        runs = [run for came in gathered.come(told, workers) for run in came.outcome.runs]
    found = RunSet(tuple(uniquely_named(runs)), (*gathered.unread, *plugins().broken))
    found = found if given is None else found.with_plan(*given)
    return found if roles is None else given_roles(found, roles)
