"""What `watch` records of a training, against per-parameter loops, and that it leaves the training as it was."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from torch import nn

from eventstream import watch as watching
from eventstream.errors import InputError
from eventstream.recorder import Recorder
from eventstream.watch import watch
from tests.eventstream.watched_models import Slow, mlp, train

REAL_SLOW_EVERY = watching.SLOW_EVERY


@pytest.fixture(autouse=True)
def _often(monkeypatch):
    """Tests are short: what is slow is measured twice as often as in a training."""
    monkeypatch.setattr(watching, "SLOW_EVERY", 10)


@pytest.fixture
def rec(tmp_path):
    with Recorder(tmp_path / "run", seal=False) as recorder:
        yield recorder


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.AdamW, torch.optim.RMSprop, torch.optim.Adagrad])
def test_every_statistic_agrees_with_a_loop_over_the_parameters(rec, watched, make):
    model = mlp()
    optimizer = make(model.parameters(), lr=0.01)
    slow = Slow(model, optimizer)
    with watch(model, optimizer, every=10, recorder=rec):
        train(model, optimizer, 31)
    found = watched(rec)
    assert list(found) == [0, 10, 20, 30]
    for step, values in found.items():
        expected = slow.rows[step] | {"lr": 0.01}
        told = {name: value for name, value in values.items() if not name.startswith("dead_units")}
        assert told.keys() == expected.keys()
        assert told == pytest.approx(expected, rel=1e-5, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_each_precision_is_summed_without_overflow(rec, watched, dtype):
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64)).to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 2000.0)
    slow = Slow(model, optimizer)
    with watch(model, optimizer, recorder=rec):
        optimizer.step()
    found = watched(rec)[0]
    assert found["grad_norm"] == pytest.approx(slow.rows[0]["grad_norm"], rel=2e-3)
    assert found["grad_norm"] > 65504
    assert found["update_ratio"] == pytest.approx(slow.rows[0]["update_ratio"], rel=2e-2)


def test_of_large_tensors_the_update_ratio_is_estimated_to_a_few_percent(rec, watched):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(512, 768), nn.ReLU(), nn.Linear(768, 512, bias=False))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    slow = Slow(model, optimizer)
    with watch(model, optimizer, every=10, recorder=rec):
        train(model, optimizer, 21, width=512)
    for step, values in watched(rec).items():
        for name in ("update_ratio", "update_ratio/0", "update_ratio/2"):
            assert values[name] == pytest.approx(slow.rows[step][name], rel=0.05)


def test_training_is_the_same_to_the_bit_with_and_without_it(rec):
    plain, seen = mlp(), mlp()
    ours = torch.optim.AdamW(seen.parameters(), lr=0.01)
    theirs = torch.optim.AdamW(plain.parameters(), lr=0.01)
    with watch(seen, ours, every=1, recorder=rec):
        train(seen, ours, 12, before_step=lambda: nn.utils.clip_grad_norm_(seen.parameters(), 0.1))
    train(plain, theirs, 12, before_step=lambda: nn.utils.clip_grad_norm_(plain.parameters(), 0.1))
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), seen.parameters(), strict=True))


def test_what_is_slow_is_measured_at_most_every_twentieth_step(rec, watched, monkeypatch):
    monkeypatch.setattr(watching, "SLOW_EVERY", REAL_SLOW_EVERY)
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with watch(model, optimizer, every=3, recorder=rec):
        train(model, optimizer, 22)
    found = watched(rec)
    assert list(found) == list(range(0, 22, 3))
    assert [step for step, values in found.items() if "update_ratio" in values] == [0, 21]
    assert all("grad_norm/0" in values for values in found.values())


def test_steps_are_the_users_where_the_user_says_them(rec, watched):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    observer = watch(model, optimizer, every=2, recorder=rec, per_layer=False)
    observer.step = 5000
    train(model, optimizer, 3)
    rec.step = 77
    train(model, optimizer, 2)
    observer.remove()
    assert list(watched(rec)) == [5000, 5002, 77]


def test_without_per_layer_only_the_model_as_a_whole_is_recorded(rec, watched):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with watch(model, optimizer, recorder=rec, per_layer=False, name="generator"):
        train(model, optimizer, 1)
    names = {"grad_norm", "param_norm", "update_ratio", "zero_grads", "dead_units", "nonfinite_grads", "lr"}
    assert set(watched(rec)[0]) == {f"generator/{name}" for name in names}


def test_a_dead_layer_is_dead_after_five_observations_and_alive_ones_are_not(rec, watched):
    model = mlp(width=16, depth=3)
    with torch.no_grad():
        model[2].bias.fill_(-100.0)  # its ReLU never lets anything through
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with watch(model, optimizer, every=10, recorder=rec):
        train(model, optimizer, 61)
    found = watched(rec)
    assert [found[step]["dead_units/2"] for step in found] == [0, 0, 0, 0, 1, 1, 1]
    # The inputs of the next layer are zero, and so are the gradients of its weights: its units live by their biases.
    silent = float((model[4].bias < 0).float().mean())
    assert [found[step]["dead_units/4"] for step in found] == [0, 0, 0, 0, silent, silent, silent]
    assert 0 < silent < 1
    assert found[60]["grad_norm/2"] == 0


def test_half_of_a_layer_dead_is_half(rec, watched):
    model = mlp(depth=2)
    with torch.no_grad():
        model[0].bias[:8] = -100.0
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with watch(model, optimizer, every=10, recorder=rec):
        train(model, optimizer, 51)
    assert watched(rec)[50]["dead_units/0"] == pytest.approx(0.5)
    assert watched(rec)[50]["zero_grads/0"] >= 0.5


def test_gradients_that_vanish_are_not_called_dead(rec, watched):
    model = mlp(depth=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with watch(model, optimizer, every=10, recorder=rec):
        for _ in range(61):
            for parameter in model.parameters():
                parameter.grad = torch.full_like(parameter, 1e-30)
            optimizer.step()
    last = watched(rec)[60]
    assert last["zero_grads"] == 0
    assert "dead_units" not in last


def test_embeddings_have_no_dead_units(rec, watched):
    model = nn.Sequential(nn.Embedding(100, 8), nn.Linear(8, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer, every=10, recorder=rec):
        for _ in range(61):
            optimizer.zero_grad()
            model(torch.tensor([1, 2, 3])).square().sum().backward()
            optimizer.step()
    last = watched(rec)[60]
    assert "dead_units/0" not in last
    assert last["dead_units/1"] == 0
    assert last["zero_grads/0"] == pytest.approx(0.97)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_gradients_that_are_not_finite_are_counted_where_they_are(rec, watched, bad):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)

    def spoil():
        model[2].weight.grad[3, :5] = bad

    with watch(model, optimizer, every=1, recorder=rec):
        train(model, optimizer, 2)
        train(model, optimizer, 1, before_step=spoil)
    found = watched(rec)
    assert found[1]["nonfinite_grads"] == 0
    assert found[2]["nonfinite_grads"] == found[2]["nonfinite_grads/2"] == 5
    assert not math.isfinite(found[2]["grad_norm"])
    assert not math.isfinite(found[2]["grad_norm/2"])
    assert math.isfinite(found[2]["grad_norm/0"])
    assert "nonfinite_grads/0" not in found[2]


def test_hooks_and_taps_are_gone_after_remove(rec):
    import torch.nn.utils.clip_grad as module
    from torch.optim.optimizer import _global_optimizer_pre_hooks

    clip, update = module._clip_grads_with_norm_, torch.amp.GradScaler.update
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    first, second = watch(model, optimizer, recorder=rec), watch(model, recorder=rec)
    assert module._clip_grads_with_norm_ is not clip
    first.remove()
    assert module._clip_grads_with_norm_ is not clip, "the second watch still needs it"
    second.remove()
    second.remove()
    assert module._clip_grads_with_norm_ is clip
    assert torch.amp.GradScaler.update is update
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    assert not _global_optimizer_pre_hooks


def test_what_is_recorded_every_step_is_what_is_recorded_rarely(rec, watched):
    found = {}
    for name, every in (("often", 1), ("rarely", 10)):
        model = mlp(width=48, depth=3)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        with watch(model, optimizer, every=every, recorder=rec, name=name) as observer:
            observer.step = 100 * every
            train(model, optimizer, 21, width=48)
        values = watched(rec)
        found[name] = [
            {key.partition("/")[2]: value for key, value in values[100 * every + step].items() if "dead" not in key}
            for step in (0, 10, 20)
        ]
    # A rare record counts and measures tensor by tensor what another measures in one pass.
    for often, rarely in zip(found["often"], found["rarely"], strict=True):
        shared = often.keys() & rarely.keys()
        assert {"grad_norm", "grad_norm/0", "grad_norm/4", "nonfinite_grads", "lr"} <= shared
        assert {key: often[key] for key in shared} == pytest.approx({key: rarely[key] for key in shared}, rel=1e-6)


def test_the_recorder_made_last_is_taken_where_none_is_given(tmp_path):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Recorder(tmp_path / "a", seal=False), Recorder(tmp_path / "b", seal=False) as last:
        assert watch(model, optimizer)._recorder is last
    with pytest.raises(InputError, match=r"make at\.Recorder\(folder\) first"):
        watch(model, optimizer)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "every must be a whole number of steps from 1, got 0"),
        ({"every": 2.5}, "got 2.5"),
        ({"optimizer": "adam"}, "optimizer must be a torch.optim.Optimizer or a list of them, got str"),
        ({"optimizer": []}, "empty list"),
        ({"model": 3}, "model must be a torch.nn.Module, got int"),
    ],
)
def test_a_call_that_cannot_be_right_says_why(rec, options, message):
    with pytest.raises(ValueError, match=message):
        watch(options.get("model", mlp()), options.get("optimizer"), every=options.get("every", 1), recorder=rec)


def test_a_failure_inside_is_said_once_and_training_goes_on(rec, caught):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    class OddGroups(list):
        def __iter__(self):
            raise RuntimeError("no groups for anybody but the optimizer")

    before = [p.detach().clone() for p in model.parameters()]
    with caught() as texts, watch(model, optimizer, every=1, recorder=rec) as observer:
        train(model, optimizer, 1)
        observer._names = None
        observer._met[id(optimizer)] = optimizer, None
        train(model, optimizer, 3)
    assert len(texts) == 1
    assert "a step could not be measured" in texts[0]
    assert not torch.equal(before[0], model[0].weight)


def test_after_the_recorder_is_closed_training_goes_on(tmp_path, caught):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rec = Recorder(tmp_path / "run", seal=False)
    observer = watch(model, optimizer, every=1, recorder=rec)
    train(model, optimizer, 1)
    rec.close()
    with caught() as texts:
        train(model, optimizer, 2)
        observer.remove()
    assert len(texts) == 1
    assert "closed" in texts[0]


def test_model_and_optimizer_can_be_copied_and_saved_while_watched(rec, tmp_path):
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    with watch(model, optimizer, every=1, recorder=rec):
        train(model, optimizer, 2)
        copy.deepcopy(model)
        pickle.loads(pickle.dumps(optimizer))
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "x.pt")
        train(model, optimizer, 1)
