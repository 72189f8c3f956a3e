"""One run with its fault planted for every kind that a check judges, and healthy runs with the quirks of real ones."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from parsers.finish import Reject, finish
from parsers.run import Run
from tests.analysis.embeddings.conftest import make_voices
from tests.analysis.hidden.build import run_of as columns_run
from tests.analysis.limits.borderline import BORDERLINE, noise, other_log, run_of, slower, train_and_eval
from tests.analysis.losses.conftest import losses_of, raws
from tests.analysis.losses.conftest import run_of as losses_run
from tests.analysis.planned.runs import a_run
from tests.analysis.planted_rates import FAMILIES, rates
from tests.analysis.planted_rates import run_of as rates_run
from tests.analysis.story.planted import columns_of
from tests.analysis.story.planted import run_of as story_run
from tests.analysis.test_contracts import PLAN, batch
from tests.analysis.test_contracts import run_of as contract_run
from tests.analysis.test_ranks import job, run_of_job
from tests.analysis.test_repeated_data import run_of as attempts_run
from tests.analysis.weights import saves_beside_logs

__all__ = ["HEALTHY", "PLANTED"]

Make = Callable[[Path], Run]


def falling(n: int = 400, seed: int = 0, spread: float = 0.03) -> Any:
    return (2 * np.exp(-3 * np.arange(n) / n) + 0.5) * np.exp(noise(n, spread, seed))


def leaping(factor: float, rows: slice) -> Run:
    loss = falling()
    loss[rows] *= factor
    return run_of({"loss": loss})


def climbing() -> Run:
    return run_of({"loss": falling() * np.exp(np.clip((np.arange(400) - 250) / 60, 0, 2.5))})


def lost() -> Run:
    loss = falling()
    loss[300:] = math.nan
    return run_of({"loss": loss})


def odd_value() -> Run:
    speed = np.exp(noise(400, 0.05))
    speed[200] *= 6
    return run_of({"loss": falling(), "step_time": speed})


def unsteady() -> Run:
    spread = np.where(np.arange(600) < 300, 0.02, 0.1)
    return run_of({"loss": (2 * np.exp(-np.arange(600) / 200) + 0.5) * np.exp(spread * noise(600, 1.0))})


def swinging() -> Run:
    return run_of({"loss": falling() * np.exp(0.25 * np.sin(2 * np.pi * np.arange(400) / 12.3))})


def cut() -> Run:
    rows = pl.DataFrame({"tag": ["loss"] * 40, "step": range(40), "value": falling(40)})
    return finish("r", "r.jsonl", "jsonl", rows, rejects=[Reject("r.jsonl", "cut", line=n) for n in range(41, 45)])


def going_back() -> Run:
    return run_of({"loss": np.ones(200)}, steps=[*range(100), *range(60, 160)])


def without_a_rank() -> Run:
    return run_of_job({key: v for key, v in job(4).items() if key[0] != 2})


def fed_again() -> Run:
    """The second attempt goes on at step 260 and sees the batches from step 0 on once more."""
    batches = 0.3 * np.random.default_rng(0).normal(size=700)
    course = 0.5 + np.exp(-np.arange(700) / 150)
    return attempts_run(
        [
            (range(260), course[:260] + batches[:260]),
            (range(260, 420), course[260:420] + batches[:160] + noise(160, 0.02)),
        ]
    )


def hidden_nan() -> Run:
    loss, norm = falling(), np.exp(noise(400, 0.2))
    loss[-40:], norm[-40:] = 0.0, math.nan
    return columns_run({"loss": loss, "grad_norm": norm})


def carried() -> Run:
    return columns_run({"loss": falling(), "val_loss": np.repeat(falling(4, 1), 100)})


def sampled() -> Run:
    steps = np.sort(np.random.default_rng(0).choice(5000, 500, replace=False))
    return columns_run({"loss": (steps, falling(500))})


def stairs() -> Run:
    rate = np.repeat(1e-3 * 0.98 ** np.arange(100), 4)
    return columns_run({"loss": falling(), "lr": rate}, config={"gradient_accumulation_steps": 4})


def epochs_alone() -> Run:
    columns = {"loss": falling(30), "val_loss": falling(30, 1)}
    return columns_run(columns, epochs=np.arange(30.0), steps=False)


def scheduler_stepped_twice() -> Run:
    plan = {"schedule": "linear", "peak": 1e-3, "total_steps": 200, "warmup_steps": 20}
    made = rates(FAMILIES[0].make, 200)
    return rates_run(np.append(made[::2], np.zeros(100)), plan)


def term_of_zero() -> Run:
    raw = raws(0, 200, ["a", "b"])
    columns = losses_of(raw, {"a": 1.0, "b": 0.5})
    columns["losses/total"] = columns["losses/a/weighted"]
    columns["losses/b/weighted"] = np.zeros(200)
    return losses_run(columns, range(200))


def bypassing_term() -> Run:
    made = losses_of(raws(0, 300, ["a", "b"]), {"a": 1.0, "b": 0.0}, hidden={"b": 0.1})
    return losses_run(made, range(300), plan={"loss_weights": {"a": 1.0, "b": 0.0}})


def given(stage: str, names: tuple[str, ...], **more: Any) -> Run:
    return contract_run([("inputs", step, batch(stage, *names, **more)) for step in range(20)])


def without_output() -> Run:
    events = [("outputs", step, batch("forward", "hidden")) for step in range(20)]
    return contract_run(events, {"outputs": {"forward": {"require": ["logits"]}}})


def mixed_devices() -> Run:
    mixed = batch("forward", "input_ids", device="cuda:0")
    mixed["tensors"]["mask"] = {"device": "cpu"}
    return contract_run([("inputs", step, mixed) for step in range(20)])


def conditioning_off() -> Run:
    return given("forward", ("input_ids",), status={"speaker": "DISABLED"})


def late_discriminator() -> Run:
    term = np.where(np.arange(200) < 120, 0.0, 0.7) * np.exp(noise(200, 0.05))
    return run_of({"g_adv_loss": term, "d_loss": 1.386 * np.exp(noise(200, 0.05)), "g_loss": 0.7 + term})


def voices(folder: Path, *, offset: float = 0.0, spread: float = 0.5, swapped: float = 0.0) -> Run:
    made, labels, _ = make_voices(0, noise=spread, swapped=swapped)
    vector = pl.Series("vector", (made + offset).astype(np.float32).tolist(), dtype=pl.Array(pl.Float32, made.shape[1]))
    paths = [f"wav/{i}.wav" for i in range(len(made))]
    pl.DataFrame({"label": [str(one) for one in labels], "path": paths, "vector": vector}).write_parquet(
        folder / "e.parquet"
    )
    told = [{"file": "e.parquet", "count": len(made), "dim": made.shape[1]}, {"status": "finished"}]
    events = pl.DataFrame({"kind": ["embeddings", "end"], "step": [100, 100], "payload": [json.dumps(t) for t in told]})
    return finish("r", str(folder), "aftertrain", events=events)


def misnamed_checkpoints() -> Run:
    saves = [("checkpoint", step, {"path": f"checkpoint-{name}"}) for step, name in ((500, 500), (600, 1000))]
    return a_run(range(0, 2001, 20), events=saves)


def cosine_run(seed: int, noisy: float, every: int = 1, n: int = 600) -> Run:
    """Warm-up, cosine, evaluations, gradient norm and speed: all that a usual training logs."""
    x = np.arange(n) * every
    rate = 3e-4 * np.minimum(1, (np.arange(n) + 1) / (n / 20)) * (0.5 + 0.5 * np.cos(np.pi * np.arange(n) / n))
    loss = falling(n, seed, noisy)
    columns = {
        "loss": loss,
        "lr": rate,
        "grad_norm": np.exp(noise(n, 0.3, seed + 1)),
        "tokens_per_second": 1000 * np.exp(noise(n, 0.05, seed + 2)),
    }
    return run_of(columns, steps=x, seconds=x * 2.0 + np.abs(noise(n, 0.1, seed)))


def healthy_game(seed: int) -> Run:
    swing = 0.3 * np.sin(np.arange(300) / 9 + seed)
    return run_of(
        {
            "d_loss": 1.2 * (1 + swing) * np.exp(noise(300, 0.1, seed)),
            "g_loss": 0.8 * (1 - swing) * np.exp(noise(300, 0.1, seed + 1)),
        }
    )


def kept_contract() -> Run:
    events = [("inputs", step, batch("forward", "input_ids", status={"speaker": "OK"})) for step in range(20)]
    events += [("outputs", step, batch("forward", "logits")) for step in range(20)]
    plan = {**PLAN, "outputs": {"forward": {"require": ["logits"]}}}
    return contract_run([*events, ("end", 19, {"status": "finished"})], plan)


def sound_sum() -> Run:
    weights = {"a": 1.0, "b": 0.5, "c": 0.1}
    made = losses_of(raws(3, 300, list(weights)), weights)
    return losses_run({**made, "losses/displayed": made["losses/total"]}, range(300), plan={"loss_weights": weights})


def sound_resume() -> Run:
    loss = falling(400, 5, 0.1)
    return attempts_run([(range(260), loss[:260]), (range(260, 400), loss[260:])])


def watched() -> Run:
    """What `watch` records of a sound model in mixed precision, with memory, and a checkpoint now and then."""
    columns: dict[str, Any] = {"loss": falling(), "grad_norm": np.exp(noise(400, 0.3)), "clip_rate": np.full(400, 0.05)}
    columns |= {"amp_scale": np.full(400, 65536.0), "amp_skipped_count": np.zeros(400)}
    for i in range(4):
        columns[f"grad_norm/fc{i}"] = 0.5 * np.exp(noise(400, 0.3, i))
        columns[f"update_ratio/fc{i}"] = 1e-3 * np.exp(noise(400, 0.1, i))
        columns[f"dead_units/fc{i}"] = np.full(400, 0.02)
    columns |= {"update_ratio": 1e-3 * np.exp(noise(400, 0.1)), "gpu_memory_mb": 7000 + noise(400, 1.0)}
    columns["gpu_memory_total_mb"] = np.full(400, 10_000.0)
    saves = [{"kind": "checkpoint", "step": s, "payload": {"path": f"checkpoint-{s}"}} for s in (100, 200, 300)]
    return story_run({tag: (np.arange(400), np.asarray(values)) for tag, values in columns.items()}, saves)


def lively_game() -> Run:
    even = {name: np.exp(noise(200, 0.05, seed)) for seed, name in enumerate(("g_grad_norm", "d_grad_norm"))}
    even |= {name: 0.9 * np.exp(noise(200, 0.1, seed)) for seed, name in enumerate(("Loss/G/loss", "Loss/D/loss"), 2)}
    seen = {"d_real": 0.6 + noise(200, 0.02), "d_fake": 0.4 + noise(200, 0.02, 1)}
    return run_of(
        {**even, **seen, "Loss/signs/real": 0.5 + noise(200, 0.01), "diversity": 0.9 * np.exp(noise(200, 0.02))}
    )


def clipped_far() -> Run:
    norms = {"grad_norm": 300 * np.exp(noise(60, 0.3)), "grad_norm_after_clip": np.ones(60)}
    return run_of({"clip_rate": np.ones(60), **norms})


def by_heart() -> Run:
    return train_and_eval(2 * np.exp(-np.arange(400) / 80), 1.5 + 0.5 * np.exp(-np.arange(40) / 8))


def too_good() -> Run:
    """Eval begins where train does, and ends at a twentieth of it: the answers are in its inputs."""
    train = 1 + np.exp(-np.arange(400) / 100)
    return train_and_eval(train, train[9::10] * np.geomspace(1, 0.05, 12)[np.minimum(np.arange(40), 11)])


def host_is_full() -> Run:
    return run_of({"host_memory_mb": np.full(60, 9950.0), "host_memory_total_mb": np.full(60, 10_000.0)})


def noted(run: Callable[[], Run]) -> Make:
    return lambda _: run()


#: Sizes from which those of `borderline.py` that begin as information are a warning.
BLAMED = {
    "dead-units": 0.8,
    "overfitting": 0.3,
    "suspiciously-good": 0.09,
    "memory-growth": 0.3,
    "player-imbalance": 400,
}

#: Kind -> a run in which it is planted; a mere fact aside, so large that it is a warning.
PLANTED: Mapping[str, Make] = {
    **{kind: noted(partial(made, BLAMED.get(kind, sizes[1]))) for kind, (_, made, sizes, *_) in BORDERLINE.items()},
    "clipping": noted(clipped_far),
    "train-eval-gap": noted(by_heart),
    "memory-overflow": noted(host_is_full),
    "suspiciously-good": noted(too_good),
    "truncated-stream": noted(cut),
    "step-regression": noted(going_back),
    "rank-missing": noted(without_a_rank),
    "repeated-data": noted(fed_again),
    "hidden-non-finite": noted(hidden_nan),
    "stale-values": noted(carried),
    "sampled-series": noted(sampled),
    "micro-batch-steps": noted(stairs),
    "epoch-only": noted(epochs_alone),
    "unfinished-run": noted(lambda: a_run(range(600), plan={"max_steps": 1000})),
    "overlong-run": noted(lambda: a_run(range(1500), plan={"max_steps": 1000})),
    "checkpoint-mismatch": noted(misnamed_checkpoints),
    "non-finite": noted(lost),
    "outlier": noted(odd_value),
    "level-shift": noted(partial(leaping, 3.0, slice(250, None))),
    "variance-shift": noted(unsteady),
    "loss-spike": noted(partial(leaping, 5.0, slice(250, 252))),
    "divergence": noted(climbing),
    "plateau": noted(lambda: run_of({"loss": 2.3 * np.exp(noise(500, 0.02)), "lr": np.full(500, 1e-3)})),
    "oscillation": noted(swinging),
    "lr-schedule": noted(scheduler_stepped_twice),
    "inactive-component": noted(term_of_zero),
    "curriculum-bypass": noted(bypassing_term),
    "missing-input": noted(lambda: given("forward", ("mask",))),
    "missing-output": noted(without_output),
    "forbidden-input": noted(lambda: given("forward", ("input_ids", "labels"))),
    "device-mismatch": noted(mixed_devices),
    "disabled-conditioning": noted(conditioning_off),
    "adversarial-phase": noted(late_discriminator),
    "embedding-collapse": partial(voices, offset=30.0),
    "low-separation": partial(voices, spread=2.0),
    "mislabelled-sample": partial(voices, swapped=0.05),
    "checkpoint-corrupt": saves_beside_logs.cut_off,
    "checkpoint-unsafe": saves_beside_logs.malicious,
    "checkpoint-non-finite": saves_beside_logs.not_finite,
    "weight-drift": saves_beside_logs.drifting,
}  # fmt: skip

#: Name -> a run with nothing wrong, for which no check may warn.
HEALTHY: Mapping[str, Make] = {
    "little noise": noted(lambda: cosine_run(1, 0.01)),
    "much noise": noted(lambda: cosine_run(2, 0.25)),
    "sparse": noted(lambda: cosine_run(3, 0.05, every=50, n=60)),
    "short": noted(lambda: cosine_run(4, 0.05, n=30)),
    "with eval": noted(lambda: story_run(columns_of(5))),
    "eval above train": noted(lambda: train_and_eval(falling(400, 6), 1.1 * falling(400, 7, 0.01)[9::10])),
    "a steady pace": noted(lambda: slower(1.0)),
    "a game": noted(lambda: healthy_game(8)),
    "a lively game": noted(lively_game),
    "a watched model": noted(watched),
    "logs that agree": noted(lambda: other_log(0.0)),
    "a kept contract": noted(kept_contract),
    "a sound sum": noted(sound_sum),
    "a sound resume": noted(sound_resume),
    "ranks of one mind": noted(lambda: run_of_job(job(4), config={"world_size": 4})),
    "a plan that was kept": noted(lambda: story_run(columns_of(9), plan={"max_steps": 2000})),
    "speakers": voices,
    "sound saves": saves_beside_logs.sound,
}
