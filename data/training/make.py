"""Trains and records every run of `data/samples` anew, or those named: `python -m data.training [NAME ...]`."""

from __future__ import annotations

import argparse
import functools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from eventstream.recorder import Recorder

from . import charlm, classifier, distillation, gan, speaker_encoder
from .readme import write_readme
from .speech import espeak, espeak_version

__all__ = ["SAMPLES", "Sample", "main", "make"]

SAMPLES_FOLDER = Path(__file__).resolve().parent.parent / "samples"


@dataclass(frozen=True)
class Sample:
    """One committed run: how it is made and what an analysis should find in it.

    `make` records into a folder under a name and returns the line that the README gives as the outcome. `kinds` are
    the kinds of finding that a faulty run must lead to; none for a healthy one.
    """

    name: str
    seed: int
    make: Callable[[Path, str], str]
    what: str
    find: str
    kinds: tuple[str, ...] = ()
    extra_version: Callable[[], str] | None = None


class LostRecordsError(RuntimeError):
    """The recorder had to leave something out: the sample would be incomplete."""


def _record(folder: Path, name: str, config: Any, plan: Any, train: Callable[[Recorder], str]) -> str:
    with Recorder(folder, config=config, plan=plan, run=name) as rec:
        outcome = train(rec)
    if rec.lost:
        raise LostRecordsError(f"{name}: {rec.lost} records were lost")
    return outcome


@functools.cache
def _taught() -> Any:
    return distillation.prepare(seed=0)


@functools.cache
def _gan_data() -> Any:
    return gan.prepare()


def _distillation(folder: Path, name: str, *, seed: int, bypass: bool = False) -> str:
    prepared = _taught()

    def train(rec: Recorder) -> str:
        accuracy = distillation.train(rec, seed=seed, prepared=prepared, bypass=bypass)
        return f"accuracy {accuracy:.3f} on held-out images"

    return _record(folder, name, distillation.config(seed), distillation.plan(), train)


def _speaker_encoder(folder: Path, name: str, *, seed: int) -> str:
    from safetensors.torch import save_file

    def save(state: dict[str, torch.Tensor], path: Path) -> None:
        save_file(state, path)

    speech = speaker_encoder.prepare(espeak)

    def train(rec: Recorder) -> str:
        eer = speaker_encoder.train(rec, speech, folder, seed=seed, save=save)
        return f"EER {100 * eer:.1f} % on held-out sentences"

    return _record(folder, name, speaker_encoder.config(seed), speaker_encoder.plan(), train)


def _gan(folder: Path, name: str, *, options: gan.Options) -> str:
    prepared = _gan_data()

    def train(rec: Recorder) -> str:
        return f"diversity {gan.train(rec, options, prepared, folder):.2f} of the data's at the end"

    return _record(folder, name, gan.config(options), gan.plan(options), train)


def _charlm(folder: Path, name: str, *, options: charlm.Options) -> str:
    def train(rec: Recorder) -> str:
        return f"eval loss {charlm.train(rec, options):.3f} nats a character at the end"

    return _record(folder, name, charlm.config(options), charlm.plan(options), train)


def _classifier(folder: Path, name: str, *, options: classifier.Options) -> str:
    def train(rec: Recorder) -> str:
        return f"accuracy {classifier.train(rec, options, folder):.3f} on held-out images"

    return _record(folder, name, classifier.config(options), classifier.plan(options), train)


def _killed(folder: Path, name: str, *, options: charlm.Options) -> str:
    """A process of its own, which dies by SIGKILL; then half of its last line goes, as when a disk lost the write."""
    code = (
        "import sys, pathlib; sys.path.append('.'); from data.training import charlm, make; "
        f"make._charlm(pathlib.Path(sys.argv[1]), {name!r}, options=charlm.{options!r})"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], cwd=SAMPLES_FOLDER.parent.parent, check=False)
    if done.returncode != -9:
        raise RuntimeError(f"{name}: the process should have died by SIGKILL and left with status {done.returncode}")
    (segment,) = folder.glob("*.jsonl")
    written = segment.read_bytes()
    last = written.rindex(b"\n", 0, -1) + 1
    segment.write_bytes(written[: (last + len(written)) // 2])
    return f"killed at step {options.kill_step} of {options.steps}"


_DISTILLATION = (
    "A small vision transformer with four softly routed experts in each layer, distilled on scikit-learn's digits from "
    "a larger one trained before: nine loss components under a curriculum of four phases, routing last."
)
_GAN = "A GAN of two small multi-layer perceptrons on scikit-learn's digits."
_CHARLM = "A character language model (one GRU layer) on sentences of a small grammar."
_CLASSIFIER = (
    "A perceptron of three layers on scikit-learn's digits. Weights, their moving average, Adam's state and the step "
    "are saved six times (`checkpoints/step_*.pt`)."
)
_SPIKE = charlm.Options(poison_step=520)
_COLLAPSE = gan.Options(rush_from=1500)
_KILLED = charlm.Options(seed=3, kill_step=307)


def _healthy_distillation(seed: int) -> Sample:
    return Sample(
        f"distillation-healthy-seed{seed}",
        seed,
        functools.partial(_distillation, seed=seed),
        _DISTILLATION,
        "Nothing: healthy. The total jumps where the plan's phases begin, because their weights do. Train loss is "
        "measured on augmented images and eval loss on held-out images augmented once, so that they compare.",
    )


SAMPLES = (
    *(_healthy_distillation(seed) for seed in (0, 1, 2)),
    Sample(
        "distillation-bypass",
        0,
        functools.partial(_distillation, seed=0, bypass=True),
        _DISTILLATION,
        "Two routing losses enter the total from step 1 on, outside the curriculum, whose weight for them is 0 until "
        f"step 900: {distillation.BYPASS['routing_expert_importance']} x the raw `routing_expert_importance` and "
        f"{distillation.BYPASS['routing_feature_matching']} x the raw `routing_feature_matching` (about 2 to 7 % of "
        "the total). `routing_load_balance` keeps to its weight. The total does not equal the sum of the weighted "
        "components; the progress bar does show the total, to four decimals. Nothing else differs from "
        "`distillation-healthy-seed0`.",
        ("curriculum-bypass", "loss-sum-mismatch"),
    ),
    Sample(
        "speaker-encoder",
        0,
        functools.partial(_speaker_encoder, seed=0),
        "A small speaker encoder (dilated convolutions, statistics pooling, additive-margin softmax) on sixteen voices "
        "of espeak-ng, twenty sentences each, fourteen for training. The audio is not kept.",
        "Nothing: healthy. Embeddings of the 96 held-out utterances at steps 0, 100, 300 and 600 with checkpoints at "
        "the same steps: at step 0 every cosine is near 1 (untrained), at the end same-speaker cosines lie above 0.7 "
        "and different-speaker cosines below 0.3 on average. Train loss is measured on noisy crops of 1 s and eval "
        "loss on clean pieces of 1.3 s.",
        extra_version=espeak_version,
    ),
    Sample(
        "gan-healthy",
        0,
        functools.partial(_gan, options=gan.Options()),
        _GAN,
        "Nothing: healthy. `diversity` (mean distance between generated images over that between real ones) rises "
        "to about 0.9 within the first third and stays near it; the generator draws nearly all ten digits. Low "
        "diversity in the first 500 steps is the generator before it has learned anything.",
    ),
    Sample(
        "gan-collapse",
        0,
        functools.partial(_gan, options=_COLLAPSE),
        _GAN,
        f"Mode collapse from step {_COLLAPSE.rush_from} on, where the generator begins to be updated "
        f"{_COLLAPSE.rush_steps} times for each update of the discriminator: `diversity` falls from 0.87 to below "
        "0.1 and `classes` to between 1 and 3. The losses look ideal all the while (d_loss near 2 ln 2, g_loss near "
        "ln 2): only diversity and the dying gradient tell. Steps are ten times as slow from there on, since each "
        f"holds {_COLLAPSE.rush_steps} updates. Until then identical to `gan-healthy`.",
        ("mode-collapse", "throughput-drop"),
    ),
    Sample(
        "charlm-healthy",
        0,
        functools.partial(_charlm, options=charlm.Options()),
        _CHARLM,
        "Nothing: healthy. Train and eval loss fall together towards the entropy of the grammar.",
    ),
    Sample(
        "charlm-spike",
        0,
        functools.partial(_charlm, options=_SPIKE),
        _CHARLM,
        f"A loss spike at step {_SPIKE.poison_step}: its batch has random targets and {_SPIKE.poison_lr_factor:g} "
        "times the planned learning rate. The loss leaps from 0.36 to 10, the weights are hurt, and the loss is within "
        "a tenth of its trend again about 80 steps later. Until then identical to `charlm-healthy`.",
        ("loss-spike", "lr-schedule"),
    ),
    Sample(
        "charlm-overfit",
        0,
        functools.partial(_charlm, options=charlm.Options(text_characters=1_500)),
        _CHARLM,
        "Overfitting: the training text has 1,500 characters. Eval loss is lowest near step 200 and climbs from there "
        "while train loss falls on.",
        ("overfitting", "train-eval-gap"),
    ),
    Sample(
        "charlm-killed",
        3,
        functools.partial(_killed, options=_KILLED),
        _CHARLM,
        f"A run that did not end: the process was killed (SIGKILL) at step {_KILLED.kill_step} of {_KILLED.steps}, so "
        "its segment is still JSON lines and there is no `end`. Its last line was then cut in half, as a disk leaves "
        "it that lost the last write. What stands before is healthy.",
        ("truncated-stream", "unfinished-run"),
    ),
    Sample(
        "classifier-healthy",
        0,
        functools.partial(_classifier, options=classifier.Options()),
        _CLASSIFIER,
        "Nothing: healthy. All layers move between any two saves, most at first; the average follows.",
    ),
    Sample(
        "classifier-frozen-layer",
        0,
        functools.partial(_classifier, options=classifier.Options(left_out="second")),
        _CLASSIFIER,
        "The plan trains every layer, and the optimizer was not given `second`: its weights are the same to the last "
        "bit in all six saves, and the optimizer's state has four parameters in place of six. The log shows nothing: "
        "loss and accuracy are nearly those of `classifier-healthy`.",
        ("frozen-layer",),
    ),
    Sample(
        "classifier-dead-units",
        0,
        functools.partial(_classifier, options=classifier.Options(dead_units=24)),
        _CLASSIFIER,
        "24 of the 48 units of `first` were born dead: their bias begins at -10, so that their ReLU never opens and no "
        "gradient ever reaches them. Their rows of `first.weight` are the same in all six saves, and Adam's moments of "
        "them exactly 0. The log shows nothing: the other 24 units suffice.",
        ("dead-units",),
    ),
)


def make(sample: Sample, out: Path) -> float:
    """Trains and records one sample below `out`, in place of an older one, with its README; returns wall seconds."""
    folder = out / sample.name
    if folder.exists():
        if not (folder / "manifest.json").exists():
            raise FileExistsError(f"{folder} is there and is no recorded run; move it away first")
        shutil.rmtree(folder)
    started, used = time.perf_counter(), sum(os.times()[:4])
    outcome = sample.make(folder, sample.name)
    took = time.perf_counter() - started
    write_readme(
        folder,
        sample.name,
        what=sample.what,
        find=sample.find,
        kinds=sample.kinds,
        seed=sample.seed,
        outcome=outcome,
        seconds=took,
        cpu_seconds=sum(os.times()[:4]) - used,
        extra_version=sample.extra_version() if sample.extra_version else None,
    )
    return took


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: makes what is named, everything where nothing is."""
    known = {sample.name: sample for sample in SAMPLES}
    parser = argparse.ArgumentParser(prog="python -m data.training", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"samples to make (all): {', '.join(known)}")
    parser.add_argument("--out", type=Path, default=SAMPLES_FOLDER, help="folder to write into (data/samples)")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in known]
    if unknown:
        parser.error(f"unknown sample {unknown[0]!r}; known: {', '.join(known)}")
    wanted = [known[name] for name in options.names] or list(SAMPLES)
    for position, sample in enumerate(wanted, start=1):
        print(f"[{position}/{len(wanted)}] {sample.name} ...", file=sys.stderr, flush=True)
        print(
            f"[{position}/{len(wanted)}] {sample.name}: {make(sample, options.out):.0f} s", file=sys.stderr, flush=True
        )
    return 0
