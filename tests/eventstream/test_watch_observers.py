"""Clipping and loss scaling as `watch` sees them, against what the loop did."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from eventstream import watch as watching
from eventstream.recorder import Recorder
from eventstream.watch import watch
from tests.eventstream.watched_models import mlp, norm, train


@pytest.fixture(autouse=True)
def _often(monkeypatch):
    """Tests are short: what is slow is measured twice as often as in a training."""
    monkeypatch.setattr(watching, "SLOW_EVERY", 10)


@pytest.fixture
def rec(tmp_path):
    with Recorder(tmp_path / "run", seal=False) as recorder:
        yield recorder


@pytest.mark.parametrize("by_name", [False, True])
def test_clipping_is_seen_before_and_after_and_its_rate_counted(rec, watched, by_name):
    from torch.nn.utils import clip_grad_norm_

    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    totals, limits = [], iter([1e9, 1e-3, 1e9, 1e-3, 1e-3, 1e9])

    def clip():
        call = clip_grad_norm_ if by_name else nn.utils.clip_grad_norm_
        totals.append(float(call(model.parameters(), next(limits))))

    with watch(model, optimizer, every=5, recorder=rec):
        train(model, optimizer, 6, before_step=clip)
    found = watched(rec)
    assert (found[0]["clip_rate"], found[5]["clip_rate"]) == (0.0, pytest.approx(3 / 5))
    assert found[0]["grad_norm"] == pytest.approx(totals[0], rel=1e-5)
    assert found[0]["grad_norm_after_clip"] == pytest.approx(totals[0], rel=1e-5)


def test_the_norm_before_clipping_is_told_for_the_model_and_each_layer(rec, watched):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    seen = {}

    def clip():
        seen["whole"] = norm(p.grad for p in model.parameters())
        seen["layer"] = norm(p.grad for p in model[2].parameters())
        nn.utils.clip_grad_norm_(model.parameters(), 1e-3)

    with watch(model, optimizer, every=1, recorder=rec):
        train(model, optimizer, 1, before_step=clip)
    found = watched(rec)[0]
    assert found["grad_norm"] == pytest.approx(seen["whole"], rel=1e-4)
    assert found["grad_norm/2"] == pytest.approx(seen["layer"], rel=1e-4)
    assert found["grad_norm_after_clip"] == pytest.approx(1e-3, rel=1e-2)
    assert found["clip_rate"] == 1.0


def test_an_infinite_norm_that_was_clipped_is_said_to_be_infinite(rec, watched):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)

    def spoil_and_clip():
        model[0].weight.grad[0, 0] = math.inf
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)

    with watch(model, optimizer, recorder=rec):
        train(model, optimizer, 1, before_step=spoil_and_clip)
    assert watched(rec)[0]["grad_norm"] == math.inf


def test_clipping_of_another_model_is_none_of_ours(rec, watched):
    model, other = mlp(), mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with watch(model, optimizer, recorder=rec):
        for parameter in other.parameters():
            parameter.grad = torch.ones_like(parameter)
        train(model, optimizer, 1, before_step=lambda: nn.utils.clip_grad_norm_(other.parameters(), 1.0))
    assert "clip_rate" not in watched(rec)[0]


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("fused", [False, True])
def test_loss_scale_and_skipped_steps_are_recorded(rec, watched, given, fused):
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=100)
    norms = {}
    with watch(model, optimizer, every=1, recorder=rec, scaler=scaler if given else None):
        for step in range(5):
            optimizer.zero_grad()
            scaler.scale(model(torch.ones(4, 16)).square().mean()).backward()
            norms[step] = norm(p.grad for p in model.parameters()) / scaler.get_scale()
            if step in (1, 3):
                model[0].weight.grad[0, 0] = math.inf
            scaler.step(optimizer)
            scaler.update()
    found = watched(rec)
    assert found[4]["amp_skipped_count"] == 2
    assert found[2]["amp_skipped_count"] == 1
    assert found[4]["amp_scale"] == 256.0
    assert found[4]["grad_norm"] == pytest.approx(norms[4], rel=1e-4), "the scale is taken out"
    assert (set(found) == {0, 2, 4}) is not fused, "a fused optimizer decides by itself, on its device"


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("fused", [False, True])
def test_the_loss_scale_is_that_of_the_step_also_where_it_grows_right_after(rec, watched, given, fused):
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=1)
    norms, scales = [], []
    with watch(model, optimizer if given else None, every=1, recorder=rec, scaler=scaler):
        for _ in range(4):
            optimizer.zero_grad()
            scaler.scale(model(torch.ones(4, 16)).square().mean()).backward()
            scales.append(scaler.get_scale())
            norms.append(norm(p.grad for p in model.parameters()) / scales[-1])
            scaler.step(optimizer)
            scaler.update()
    found = watched(rec)
    assert [found[step]["amp_scale"] for step in range(4)] == scales == [4.0, 8.0, 16.0, 32.0]
    assert [found[step]["grad_norm"] for step in range(4)] == pytest.approx(norms, rel=1e-5)
