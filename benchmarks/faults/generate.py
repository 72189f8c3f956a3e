"""Makes the logs: `python -m benchmarks.faults.generate` (see README.md beside this file).

Runs that are there are not made again. `--only KIND` makes one kind (or `healthy`), `--share 0.1` an even tenth;
`--split practice` makes further runs, which are in neither half and stand in a folder of their own.
"""

from __future__ import annotations

import argparse
import hashlib
import pickle
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.faults.cells import Cell, draw_cell, held_out
from benchmarks.faults.dress import dress, is_dressed
from benchmarks.faults.gan import train_gan
from benchmarks.faults.health import why_unhealthy
from benchmarks.faults.healthy import QUIRKS
from benchmarks.faults.jobs import Job, all_jobs, practice_jobs
from benchmarks.faults.ladder import ladder_of
from benchmarks.faults.loop import train
from benchmarks.faults.planting import Ask, Draw, Fault, NotPlantedError, Planted, all_faults
from benchmarks.faults.plants.stream import cut
from benchmarks.faults.recipe import Recipe
from benchmarks.faults.trace import Trace
from benchmarks.faults.truth import HALVES, PRACTICE, SPLITS, RunTruth, complete, folder_of, write_index
from benchmarks.faults.writers import FORMATS

__all__ = ["Maker", "main"]

#: How often a fault that did not take effect is drawn again.
DRAWS = 12
#: Healthy trainings that faults of the log share, for each half, family set and set of lengths.
POOL = 10


class Maker:
    """Makes runs into a folder. Healthy trainings that faults of the log are planted in are kept in `bases`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.faults = folder, all_faults()
        (folder / "bases").mkdir(parents=True, exist_ok=True)

    def make(self, job: Job) -> str:
        """Makes one run; returns an empty string, or why it could not be made."""
        folder = self.folder / "runs" / job.id
        why = ""
        for attempt in range(DRAWS):
            shutil.rmtree(folder, ignore_errors=True)
            try:
                truth = (self._healthy if job.magnitude == 0 else self._faulty)(job, folder, attempt)
            except NotPlantedError as error:
                why = f"{job.id}: {error}"
                continue
            truth.draws = attempt + 1
            truth.write(folder)
            return ""
        shutil.rmtree(folder, ignore_errors=True)
        return why

    def trained(self, recipe: Recipe) -> Trace:
        """The healthy training of a recipe, from `bases` where it was made before."""
        path = self.folder / "bases" / f"{hashlib.sha256(repr(recipe).encode()).hexdigest()[:24]}.pickle"
        if path.exists():
            with path.open("rb") as file:  # nobody but this program writes there
                kept: Trace = pickle.load(file)
            return kept
        made = train_gan(recipe) if recipe.family == "gan" else train(recipe)
        path.write_bytes(pickle.dumps(made))
        return made

    def _healthy(self, job: Job, folder: Path, attempt: int) -> RunTruth:
        rng, name = job.rng(attempt), job.plant.split("/")[1]
        quirk = QUIRKS[name]
        cell = draw_cell(job.split, rng, families=quirk.families, formats=quirk.formats, points=quirk.points,
                         schedules=quirk.schedules)  # fmt: skip
        recipe = quirk.change(cell.recipe, rng).with_(quirks=(name,))
        if not quirk.trained:
            trace = Trace([], {}, {}, 0, 0)
        else:
            trace = train_gan(recipe) if recipe.family == "gan" else train(recipe)
        trace = quirk.after(trace, recipe, rng)
        if why := why_unhealthy(trace, recipe):
            raise NotPlantedError(why)
        if not is_dressed(trace):
            dress(trace, recipe, rng, memory=quirk.memory, speed=quirk.speed)
        path = FORMATS[cell.format].write(trace, folder / "log", rng)
        return self._truth(job, Cell(recipe, cell.format), trace, path, None)

    def _faulty(self, job: Job, folder: Path, attempt: int) -> RunTruth:
        rng, fault = job.rng(attempt), self.faults[job.plant]
        ask = Ask(job.variant, job.magnitude, rng)
        cell = pooled_cell(job.split, fault, ask) if fault.pooled else demanded_cell(job.split, fault, ask)
        draw = Draw(fault.kind, job.variant, job.magnitude, cell.recipe, rng, self.trained)
        planted = fault.plant(draw)
        if not is_dressed(planted.trace):
            dress(planted.trace, cell.recipe, rng)
        path = FORMATS[cell.format].write(planted.trace, folder / "log", rng)
        if "cut" in planted.extra:
            cut(path, planted.extra["cut"])
            planted.onset = int(planted.extra["cut"] * planted.trace.last_step)
        return self._truth(job, cell, planted.trace, path, planted)

    def _truth(self, job: Job, cell: Cell, trace: Trace, path: Path, planted: Planted | None) -> RunTruth:
        recipe, kind = cell.recipe, job.plant.split("/")[0]
        ladder = ladder_of(kind, job.variant) if planted else None
        accepted = dict.fromkeys([*(ladder.accepted if ladder else ()), *(planted.accepted if planted else ())])
        # Lightning counts steps from 0
        late = 1 if cell.format in ("lightning-csv", "csv+tensorboard") else 0

        def counted(step: int | None) -> int | None:
            return None if step is None else step - late

        return RunTruth(
            id=job.id, path=str(path.relative_to(self.folder)), split=job.split, family=recipe.family,
            optimizer=recipe.optimizer, schedule=recipe.schedule, points=recipe.points, batch=recipe.batch,
            format=cell.format, quirks=list(recipe.quirks), fault=kind if planted else None, variant=job.variant,
            magnitude=job.magnitude if planted else None, size=planted.size if planted else None,
            wanted=ladder.sizes[job.magnitude - 1] if ladder else None, unit=ladder.unit if ladder else None,
            onset_step=counted(planted.onset) if planted else None, end_step=counted(planted.end) if planted else None,
            last_step=counted(trace.last_step), metric=planted.metric if planted else None,
            accepted=[one for one in accepted if one != kind], every=recipe.every, seed=recipe.seed, draws=1,
            extra=planted.extra if planted else {},
        )  # fmt: skip


def demanded_cell(split: str, fault: Fault, ask: Ask) -> Cell:
    """A training of its own for a fault."""
    cell = draw_cell(split, ask.rng, families=fault.families, formats=fault.formats, points=fault.points,
                     schedules=fault.schedules)  # fmt: skip
    return Cell(fault.demand(cell.recipe, ask), cell.format)


def pooled_cell(split: str, fault: Fault, ask: Ask) -> Cell:
    """One of the trainings that faults of the log share, and a format of this run's own."""
    while True:
        pool = np.random.default_rng([SPLITS.index(split), int(ask.rng.integers(POOL)), 31])
        cell = draw_cell(split, pool, families=fault.families, formats=("jsonl",), points=fault.points,
                         schedules=fault.schedules)  # fmt: skip
        recipe, format = fault.demand(cell.recipe, ask), str(ask.rng.choice(fault.formats))
        common = recipe.family == "gan" or len(fault.formats) == 1
        if common or split == "scored" or not held_out(recipe.family, recipe.schedule, format):
            return Cell(recipe, format)


def chosen(jobs: Sequence[Job], only: Sequence[str], share: float) -> list[Job]:
    """Jobs of the kinds in `only` (all without), and of those an even share, both halves of the set alike."""
    kept = [job for job in jobs if not only or job.plant.split("/")[0] in only]
    unknown = set(only) - {job.plant.split("/")[0] for job in jobs}
    if unknown:
        known = ", ".join(sorted({job.plant.split("/")[0] for job in jobs}))
        raise ValueError(f"nothing is planted for {', '.join(sorted(unknown))}; known: {known}")
    if not 0 < share <= 1:
        raise ValueError(f"share must lie above 0 and up to 1, got {share}")
    return [job for i, job in enumerate(kept) if int((i + 1) * share) > int(i * share)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Makes what is missing and writes the index of all that is there."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults.generate", description=__doc__)
    parser.add_argument("--only", action="append", default=[], metavar="KIND", help="this kind (or `healthy`) only")
    parser.add_argument("--share", type=float, default=1.0, help="an even share of the runs (default 1)")
    parser.add_argument("--split", choices=("halves", PRACTICE), default="halves", help="default: the two halves")
    parser.add_argument("--reps", type=int, default=1, help="runs for practice of each variant and magnitude")
    parser.add_argument("--folder", type=Path, help="where the logs stand (default .work/faults, -practice)")
    given = parser.parse_args(arguments)
    practice = given.split == PRACTICE
    folder = given.folder or folder_of(PRACTICE if practice else HALVES[0])
    jobs = practice_jobs(given.reps) if practice else all_jobs()
    wanted = chosen(jobs, given.only, given.share)
    maker, begun, failed = Maker(folder), time.monotonic(), 0
    missing = [job for job in wanted if not complete(folder / "runs" / job.id)]
    # in a mixed order, so that an unfinished set holds some of everything
    np.random.default_rng(7).shuffle(missing)  # type: ignore[arg-type]
    for i, job in enumerate(missing, 1):
        why = maker.make(job)
        failed += bool(why)
        if why:
            print(f"not made: {why}", file=sys.stderr)
        if i % 50 == 0 or i == len(missing):
            took = time.monotonic() - begun
            print(f"{i} of {len(missing)} runs, {took:.0f} s", file=sys.stderr, flush=True)
            _indexed(folder, jobs, practice)
    count = _indexed(folder, jobs, practice)
    print(f"{count} runs in {folder.name}/index.json; {failed} could not be made", file=sys.stderr)
    return 0


def _indexed(folder: Path, jobs: Sequence[Job], practice: bool) -> int:
    """Writes the index; of runs for practice all that are there count, however many were asked for this time."""
    ids = sorted(one.name for one in (folder / "runs").glob("*")) if practice else [job.id for job in jobs]
    return write_index(folder, ids)


if __name__ == "__main__":
    sys.exit(main())
