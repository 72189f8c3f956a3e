"""A character model that learns a text by the loop of the guide, resumed once: its run is judged healthy."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import aftertrain as at

GUIDE = Path(__file__).parents[2] / "docs" / "recording.md"
TEXT = Path(__file__).parents[2] / "LICENSE"
BLOCK, BATCH, STEPS = 16, 16, 400
#: The machine that runs the tests may become slower in the midst of a training, and the log then says so.
UNTIMED = {"ignore": ["throughput-drop", "stall"]}


class Characters(nn.Module):
    """One causal block of attention over characters, as nanoGPT has them: (ids, targets) -> (logits, loss)."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        width = config["width"]
        self.wte, self.wpe = nn.Embedding(config["vocabulary"], width), nn.Embedding(BLOCK, width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.head = nn.Linear(width, config["vocabulary"], bias=False)
        self.register_buffer("mask", torch.triu(torch.ones(BLOCK, BLOCK, dtype=torch.bool), 1), persistent=False)

    def forward(self, ids: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.wte(ids) + self.wpe(torch.arange(BLOCK))
        y = self.norms[0](x)
        x = x + self.attention(y, y, y, attn_mask=self.mask, need_weights=False)[0]
        x = x + self.mlp(self.norms[1](x))
        logits = self.head(self.norms[2](x))
        return logits, nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def names(first: int, until: int, model: Characters, ids: torch.Tensor) -> dict[str, Any]:
    """What the loop of the guide takes from the script around it."""
    noise = torch.Generator().manual_seed(first)
    parts = {"train": ids[: len(ids) * 9 // 10], "val": ids[len(ids) * 9 // 10 :]}

    def get_batch(split: str) -> tuple[torch.Tensor, torch.Tensor]:
        data = parts[split]
        starts = torch.randint(len(data) - BLOCK - 1, (BATCH,), generator=noise)
        rows = torch.stack([data[start : start + BLOCK + 1] for start in starts])
        return rows[:, :-1], rows[:, 1:]

    def estimate_loss(split: str) -> float:
        with torch.no_grad():
            return sum(model(*get_batch(split))[1].item() for _ in range(8)) / 8

    def get_lr(step: int, peak: float = 3e-3, warmup: int = STEPS // 2) -> float:
        if step < warmup:
            return peak * step / warmup
        return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (STEPS - warmup)))

    return {
        "GPT": lambda config: model,
        "config": {"vocabulary": int(ids.max()) + 1, "width": 32},
        "device": "cpu",
        "dtype": "float32",
        "autocast": nullcontext(),
        "get_batch": get_batch,
        "get_lr": get_lr,
        "estimate_loss": estimate_loss,
        "accumulation": 1,
        "first_iter": first,
        "max_iters": until,
    }


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_character_model_learns_by_the_loop_of_the_guide_and_its_resumed_run_is_healthy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = TEXT.read_text()
    known = sorted(set(text))
    ids = torch.tensor([known.index(letter) for letter in text])
    torch.manual_seed(0)
    model = Characters({"vocabulary": len(known), "width": 32})
    (block,) = GUIDE.read_text().split("```python\nimport torch\n")[1:]
    # A faster pace than the guide's, whose steps are thousands: evaluations and checkpoints every 100 steps. The warmup
    # of the guide ends where the run is resumed, so that both starts are of one schedule.
    source = ("import torch\n" + block.split("```")[0]).replace("1000", "100").replace("6e-4", "3e-3")
    loop = compile(source, str(GUIDE), "exec")
    for first, until in ((0, STEPS // 2), (STEPS // 2, STEPS)):
        exec(loop, names(first, until, model, ids))

    run = at.load("runs/gpt-1")
    losses = run.series("loss", split="train")
    assert losses["step"].to_list() == list(range(STEPS))
    # It has learned more than how often each character stands in the text.
    shares = [count / len(text) for count in Counter(text).values()]
    entropy = -sum(share * math.log(share) for share in shares)
    assert losses["value"][0] == pytest.approx(math.log(len(known)), rel=0.2)
    assert losses["value"].tail(50).mean() < entropy - 0.3
    assert run.series("loss", split="eval")["step"].to_list() == [0, 100, 200, 300]
    assert run.scalars["attempt"].unique().sort().to_list() == [0, 1]
    assert run.series("grad_norm", split="train").height >= 4
    assert [f for f in at.diagnose(run, rules=UNTIMED).findings if f.severity != "info"] == []
