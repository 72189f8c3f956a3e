"""`python -m benchmarks.faults [generate|score|all]`: make logs with known faults, and say how well they are found."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmarks.faults import page, peers
from benchmarks.faults.rules import RULES
from benchmarks.faults.score import Score, score_of
from benchmarks.faults.score_judging import Judge, told_of
from benchmarks.faults.score_misses import write_misses
from benchmarks.faults.score_ours import ours
from benchmarks.faults.score_tables import further, headline, kinds_table, quirks_table, worst_table
from benchmarks.faults.score_truth import Truth, chosen, read_index
from benchmarks.faults.truth import PRACTICE, SPLITS, folder_of


def _judges(with_peers: bool) -> list[Judge]:
    judges = [ours(), *RULES]
    if with_peers:
        there = peers.installed()
        judges += there
        missing = set(peers.PEERS) - {one.name for one in there}
        if missing:
            print(
                f"not installed, left out: {', '.join(sorted(missing))}; see benchmarks/faults/peers.py",
                file=sys.stderr,
            )
    return judges


def scored(truths: Sequence[Truth], logs: Path, judges: Sequence[Judge], *, jobs: int, fresh: bool) -> list[Score]:
    """The score of each judge over the runs."""
    return [
        score_of(
            judge.name,
            truths,
            told_of(judge, truths, logs, jobs=jobs, fresh=fresh),
            any_level=judge.kinds is not None,
        )
        for judge in judges
    ]


def _slow(score: Score) -> str:
    slow = sorted((one.told.seconds, one.truth.id) for one in score.outcomes if one.told.seconds > 0.5)
    return "; ".join(f"{name} {seconds:.1f} s" for seconds, name in reversed(slow[-5:]))


def _truths(given: argparse.Namespace) -> list[Truth]:
    try:
        return chosen(read_index(given.logs), given.split, given.only or (), given.share)
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(str(error)) from error


def _score(given: argparse.Namespace) -> None:
    truths = _truths(given)
    if not truths:
        raise SystemExit("no run fits: see --split, --only and --share")
    faults = Counter(truth.fault for truth in truths)
    kinds = len(faults) - (None in faults)
    print(f"{len(truths)} runs of the split {given.split}: {faults[None]} healthy, others with {kinds} kinds of fault")
    scores = scored(truths, given.logs, _judges(given.peers), jobs=given.jobs, fresh=given.fresh)
    own = scores[0]
    parts = [headline(scores), further(scores), kinds_table(own, scores[1:]), worst_table(own), quirks_table(own)]
    print("\n" + "\n".join(parts))
    if slow := _slow(own):
        print(f"slow to judge: {slow}")
    if given.split != "scored":  # of the scored runs, nobody looks at single misses: nothing is tuned on them
        path = given.logs / ("misses-part.jsonl" if given.only or given.share != 1 else "misses.jsonl")
        print(f"{write_misses(own, path)} misses and false alarms: {path}")
    if given.write:
        if given.split != "scored" or given.only or given.share != 1:
            raise SystemExit("the page is made of the whole scored split: --split scored, without --only and --share")
        print("written:", *page.write(scores, truths, given.split))


def _generate(given: argparse.Namespace) -> None:
    from benchmarks.faults import generate

    only = [word for kind in given.only or () for word in ("--only", kind)]
    practice = ["--split", PRACTICE, "--reps", str(given.reps)] if given.split == PRACTICE else []
    generate.main([*only, *practice, "--share", str(given.share), "--folder", str(given.logs)])


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    made.add_argument("work", nargs="?", choices=("generate", "score", "all"), default="all", help="default: all")
    made.add_argument("--split", choices=SPLITS, default=SPLITS[0], help="which runs to score (default: calibration)")
    made.add_argument("--reps", type=int, default=1, help="runs for practice of each variant and magnitude (default 1)")
    made.add_argument("--only", action="append", metavar="KIND", help="this fault alone, or `healthy`; may be repeated")
    made.add_argument(
        "--share", type=float, default=1.0, help="an even share of the runs, for a quick look (default 1)"
    )
    made.add_argument("--peers", action="store_true", help="other programs as well, as far as they are installed")
    made.add_argument("--write", action="store_true", help="write docs/faults.md and its figures")
    made.add_argument("--jobs", type=int, default=2, help="processes that judge (default 2)")
    made.add_argument("--fresh", action="store_true", help="judge anew what was judged before")
    made.add_argument("--logs", type=Path, help="where the generated logs lie (default .work/faults, -practice)")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    given.logs = given.logs or folder_of(given.split)
    if given.work in ("generate", "all"):
        _generate(given)
    if given.work in ("score", "all"):
        _score(given)
    return 0


if __name__ == "__main__":
    sys.exit(main())
