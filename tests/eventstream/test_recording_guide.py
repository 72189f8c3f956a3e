"""What docs/recording.md shows runs as it stands, and the run that it makes is judged."""

from __future__ import annotations

import math
import tracemalloc
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import nn

import aftertrain as at
from eventstream.recorder import Recorder

GUIDE = Path(__file__).parents[2] / "docs" / "recording.md"
#: The machine that runs the tests may become slower in the midst of a training, and the log then says so.
UNTIMED = {"ignore": ["throughput-drop", "stall"]}


class Tiny(nn.Module):
    """A language model as nanoGPT has it: (ids, targets) -> (logits, loss)."""

    def __init__(self, config):
        super().__init__()
        self.wte = nn.Embedding(config["vocabulary"], config["width"])
        self.mlp = nn.Sequential(nn.Linear(config["width"], 32), nn.ReLU(), nn.Linear(32, config["width"]))
        self.head = nn.Linear(config["width"], config["vocabulary"], bias=False)

    def forward(self, ids, targets):
        logits = self.head(self.mlp(self.wte(ids)))
        return logits, nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def guide_names(steps):
    noise = torch.Generator().manual_seed(0)

    def get_batch(split):
        ids = torch.randint(11, (4, 8), generator=noise)
        return ids, (ids * 3) % 11

    def get_lr(step, peak=6e-4, warmup=200):
        if step < warmup:
            return peak * step / warmup
        return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))

    return {
        "GPT": Tiny,
        "config": {"vocabulary": 11, "width": 16},
        "device": "cpu",
        "dtype": "float32",
        "autocast": nullcontext(),
        "get_batch": get_batch,
        "get_lr": get_lr,
        "estimate_loss": lambda split: 2.0,
        "accumulation": 2,
        "first_iter": 0,
        "max_iters": steps,
    }


def test_the_loop_of_the_guide_runs_and_its_run_is_healthy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    block = GUIDE.read_text().split("```python\n")[1]
    exec(compile(block.split("```")[0], str(GUIDE), "exec"), guide_names(301))
    run = at.load("runs/gpt-1")
    assert run.series("loss", split="train")["step"].to_list() == list(range(301))
    assert run.series("grad_norm", split="train")["step"].to_list() == [0, 100, 200, 300]
    assert {"clip_rate", "update_ratio/mlp.0", "param_norm/wte", "dead_units", "lr"} <= set(run.metrics)
    assert run.plan["lr"]["peak"] == 6e-4
    assert [kind for kind in run.events["kind"] if kind == "checkpoint"] == ["checkpoint"]
    assert not [f for f in at.diagnose(run, rules=UNTIMED).findings if f.severity != "info"]


@pytest.mark.parametrize("spoiled", [False, True])
def test_one_step_with_gradients_that_are_nan_is_found_and_a_healthy_run_is_left_alone(tmp_path, spoiled):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    noise = torch.Generator().manual_seed(1)
    truth = torch.randn(16, 1, generator=noise)
    with Recorder(tmp_path / "run", seal=False) as rec, at.watch(model, optimizer, every=5, recorder=rec):
        for step in range(500):
            x = torch.randn(64, 16, generator=noise)
            optimizer.zero_grad()
            loss = (model(x) - (x @ truth).tanh()).square().mean()
            loss.backward()
            kept = [p.detach().clone() for p in model.parameters()]
            if spoiled and step == 300:
                model[0].weight.grad[2, 3] = float("nan")
            optimizer.step()
            if spoiled and step == 300:  # as a training does that rolls back a bad step
                with torch.no_grad():
                    for parameter, old in zip(model.parameters(), kept, strict=True):
                        parameter.copy_(old)
            rec.log(step, {"loss": loss}, split="train")
    findings = at.diagnose(at.load(tmp_path / "run"), rules=UNTIMED).findings
    found = {(f.kind, f.first_step) for f in findings if f.kind == "non-finite"}
    assert found == ({("non-finite", 300)} if spoiled else set())
    assert not [f for f in findings if f.severity != "info" and f.kind != "non-finite"]


def test_memory_does_not_grow_with_the_run(tmp_path):
    """A small version of the benchmark's ten million records, with segments that are left for the next."""
    with Recorder(tmp_path, seal=False, segment_bytes=1 << 20) as rec:
        for step in range(20_000):
            rec.log(step, {"loss": 0.5, "lr": 1e-3})
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for step in range(20_000, 220_000):
                rec.log(step, {"loss": 0.5, "lr": 1e-3})
            grown = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
    assert len(list(tmp_path.glob("*.jsonl"))) > 10
    assert grown < 64 * 1024
