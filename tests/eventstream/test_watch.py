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

REAL_SLOW_EVERY = watching.SLOW_EVERY


@pytest.fixture(autouse=True)
def _often(monkeypatch):
    """Tests are short: what is slow is measured twice as often as in a training."""
    monkeypatch.setattr(watching, "SLOW_EVERY", 10)


@pytest.fixture
def rec(tmp_path):
    with Recorder(tmp_path / "run", seal=False) as recorder:
        yield recorder


@pytest.fixture
def watched(lines_of):
    """The metrics records of a recorder's run: {step: values}, with what is not finite put back."""

    def read(recorder):
        found = {}
        for record in lines_of(recorder.path):
            if record["kind"] == "metrics":
                others = {k: float(v.replace("Infinity", "inf")) for k, v in record.get("nonfinite", {}).items()}
                assert record["step"] not in found
                assert record["split"] == "train"
                found[record["step"]] = record["values"] | others
        return found

    return read


def mlp(width=16, depth=3, seed=0, **options):
    torch.manual_seed(seed)
    layers = [layer for _ in range(depth) for layer in (nn.Linear(width, width, **options), nn.ReLU())]
    return nn.Sequential(*layers)


def train(model, optimizer, steps, *, seed=1, before_step=lambda: None, width=16):
    noise = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        optimizer.zero_grad()
        x = torch.randn(8, width, generator=noise)
        (model(x) - x).square().mean().backward()
        before_step()
        optimizer.step()


def norm(tensors):
    return math.sqrt(sum(float((t.detach().double() ** 2).sum()) for t in tensors))


class Slow:
    """The slow and obvious version: loops over parameters, around the step."""

    def __init__(self, model, optimizer):
        self.model, self.rows, self.quiet = model, [], {}
        optimizer.register_step_pre_hook(self.before)
        optimizer.register_step_post_hook(self.after)

    def layers(self):
        for name, module in self.model.named_modules():
            own = [p for p in module.parameters(recurse=False) if p.requires_grad]
            if own:
                yield name, own

    def before(self, *_):
        row = {}
        everything = [p for _, own in self.layers() for p in own]
        for suffix, own in [("", everything), *((f"/{name}", own) for name, own in self.layers())]:
            grads = [p.grad for p in own if p.grad is not None]
            row[f"param_norm{suffix}"] = norm(own)
            if grads:
                row[f"grad_norm{suffix}"] = norm(grads)
                row[f"zero_grads{suffix}"] = sum(int((g == 0).sum()) for g in grads) / sum(g.numel() for g in grads)
                bad = sum(int((~g.isfinite()).sum()) for g in grads)
                if bad or not suffix:
                    row[f"nonfinite_grads{suffix}"] = bad
        self.old = {id(p): p.detach().clone() for p in everything}
        self.rows.append(row)

    def after(self, *_):
        everything = [p for _, own in self.layers() for p in own]
        for suffix, own in [("", everything), *((f"/{name}", own) for name, own in self.layers())]:
            was = [self.old[id(p)] for p in own]
            if norm(was):
                self.rows[-1][f"update_ratio{suffix}"] = norm([p - o for p, o in zip(own, was, strict=True)]) / norm(
                    was
                )


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


def test_layers_in_several_precisions_are_measured_each_in_its_own(rec, watched):
    model = mlp(depth=3)
    model[2].bfloat16()
    model[4].double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    noise, steps = torch.Generator().manual_seed(0), []
    with watch(model, optimizer, every=1, recorder=rec):
        for present in ([0, 2, 4], [0, 2, 4], [2, 4], [0, 2, 4], [0]):
            optimizer.zero_grad()
            for layer in present:
                for parameter in model[layer].parameters():
                    parameter.grad = torch.randn(parameter.shape, generator=noise).to(parameter.dtype)
            steps.append({layer: norm(p.grad for p in model[layer].parameters()) for layer in present})
            optimizer.step()
    for step, layers in enumerate(steps):
        found = watched(rec)[step]
        told = {int(name.partition("/")[2]): value for name, value in found.items() if name.startswith("grad_norm/")}
        assert told == pytest.approx(layers, rel=1e-5)
        assert found["grad_norm"] == pytest.approx(math.hypot(*layers.values()), rel=1e-5)


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


def test_a_group_added_later_and_a_layer_frozen_later_are_followed(rec, watched):
    model = mlp()
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.1)
    with watch(model, optimizer, every=10, recorder=rec):
        train(model, optimizer, 10)
        optimizer.add_param_group({"params": model[2].parameters(), "lr": 0.2})
        train(model, optimizer, 10)
        model[0].requires_grad_(False)
        train(model, optimizer, 10)
    found = watched(rec)
    layers = [
        {name.partition("/")[2] for name in values if name.startswith("param_norm/")} for values in found.values()
    ]
    assert layers == [{"0"}, {"0", "2"}, {"2"}]
    assert found[0]["lr"] == 0.1
    assert (found[10]["lr/0"], found[10]["lr/1"]) == (0.1, 0.2)


def test_a_parameter_without_gradient_counts_as_unmoved_and_has_no_gradient_statistics(rec, watched):
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model[4].requires_grad_(True)
    with watch(model, optimizer, recorder=rec):
        model[0](torch.ones(2, 16)).sum().backward()
        optimizer.step()
    found = watched(rec)[0]
    assert "grad_norm/4" not in found
    assert found["update_ratio/4"] == 0
    assert found["update_ratio/0"] > 0


def test_tied_weights_are_counted_once(rec, watched):
    model = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
    model[1].weight = model[0].weight
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer, recorder=rec):
        model(torch.ones(1, 8)).sum().backward()
        optimizer.step()
    found = watched(rec)[0]
    assert "grad_norm/1" not in found
    assert found["grad_norm/0"] == found["grad_norm"]


def test_sparse_gradients_are_measured_as_the_dense_ones_that_they_stand_for(rec, watched):
    found = {}
    for sparse in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(50, 4, sparse=sparse), nn.Linear(4, 2))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with watch(model, optimizer, recorder=rec, name="sparse" if sparse else "dense") as observer:
            observer.step = int(sparse)
            model(torch.tensor([3, 3, 7])).square().sum().backward()
            optimizer.step()
        found[sparse] = {name.partition("/")[2]: value for name, value in watched(rec)[int(sparse)].items()}
    assert found[True] == pytest.approx(found[False], rel=1e-5)


def test_a_closure_computes_the_gradients_that_are_recorded(rec, watched):
    model = mlp(depth=1)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=2)
    x = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))

    def closure():
        optimizer.zero_grad()
        loss = (model(x) - x).square().mean()
        loss.backward()
        return loss

    with watch(model, optimizer, every=1, recorder=rec):
        for _ in range(3):
            optimizer.step(closure)
            last = norm(p.grad for p in model.parameters())
    found = watched(rec)
    assert found[2]["grad_norm"] == pytest.approx(last, rel=1e-5)
    assert found[0]["update_ratio"] > 0


def test_several_optimizers_of_one_model_make_one_record_a_step(rec, watched):
    model = mlp(depth=2)
    optimizers = [torch.optim.SGD(model[0].parameters(), lr=0.1), torch.optim.AdamW(model[2].parameters(), lr=0.1)]
    slow = []
    with watch(model, optimizers, every=2, recorder=rec):
        for _ in range(4):
            model.zero_grad()
            model(torch.ones(2, 16)).square().sum().backward()
            slow.append(norm(p.grad for p in model.parameters()))
            for optimizer in optimizers:
                optimizer.step()
    found = watched(rec)
    assert list(found) == [0, 2]
    assert [found[0]["grad_norm"], found[2]["grad_norm"]] == pytest.approx([slow[0], slow[2]], rel=1e-5)
    assert {"grad_norm/0", "grad_norm/2"} < set(found[2])


def test_without_an_optimizer_whichever_steps_the_model_is_watched_and_no_other(rec, watched):
    model, other = mlp(), mlp(seed=5)
    mine, theirs = (torch.optim.SGD(m.parameters(), lr=0.1) for m in (model, other))
    with watch(model, every=1, recorder=rec):
        for _ in range(2):
            train(other, theirs, 1)
            train(model, mine, 1)
    found = watched(rec)
    assert list(found) == [0, 1]
    assert found[1]["grad_norm"] > 0


def test_gradients_are_those_of_the_whole_accumulated_batch(rec, watched):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer, every=1, recorder=rec):
        for _ in range(3):
            optimizer.zero_grad()
            for part in torch.ones(4, 2, 16):
                model(part).square().mean().backward()
            whole = norm(p.grad for p in model.parameters())
            optimizer.step()
    found = watched(rec)
    assert list(found) == [0, 1, 2]
    assert found[2]["grad_norm"] == pytest.approx(whole, rel=1e-5)


def test_names_of_wrapped_models_are_those_of_the_model(rec, watched):
    class Wrapped(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.module = inner

        def forward(self, x):
            return self.module(x)

    inner = mlp(depth=1)
    model = Wrapped(torch.compile(inner, backend="eager"))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer, recorder=rec):
        train(inner, optimizer, 1)
    assert "grad_norm/0" in watched(rec)[0]


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # torch's own use
def test_a_compiled_optimizer_step_is_watched_beside_its_graph(rec, watched):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    norms = []
    with watch(model, optimizer, every=3, recorder=rec):
        step = torch.compile(optimizer.step, backend="eager")
        for _ in range(7):
            optimizer.zero_grad()
            model(torch.ones(2, 16)).square().sum().backward()
            norms.append(norm(p.grad for p in model.parameters()))
            step()
    found = watched(rec)
    assert list(found) == [0, 3, 6]
    assert found[6]["grad_norm"] == pytest.approx(norms[6], rel=1e-5)
    torch._dynamo.reset()


def test_a_convolution_in_channels_last_and_a_transposed_one_are_measured(rec, watched):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(16, 96, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(96, 4, 3))
    model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    slow = Slow(model, optimizer)
    with watch(model, optimizer, recorder=rec):
        model(torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(0))).square().mean().backward()
        optimizer.step()
    found = watched(rec)[0]
    assert found["grad_norm/0"] == pytest.approx(slow.rows[0]["grad_norm/0"], rel=1e-5)
    assert found["update_ratio/0"] == pytest.approx(slow.rows[0]["update_ratio/0"], rel=0.1)
    assert "dead_units/2" not in found


def test_the_learning_rate_may_be_a_tensor(rec, watched):
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), lr=torch.tensor(0.25))
    with watch(model, optimizer, recorder=rec):
        train(model, optimizer, 1)
    assert watched(rec)[0]["lr"] == 0.25


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


@pytest.fixture
def process_group(tmp_path):
    """A job of one process."""
    import torch.distributed as dist

    dist.init_process_group("gloo", rank=0, world_size=1, init_method=f"file://{tmp_path / 'rendezvous'}")
    yield
    dist.destroy_process_group()


def test_a_model_in_ddp_keeps_its_names(rec, watched, process_group):
    model = nn.parallel.DistributedDataParallel(mlp())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer, recorder=rec):
        train(model, optimizer, 1)
    found = watched(rec)[0]
    assert {"grad_norm/0", "grad_norm/2", "grad_norm/4"} <= set(found)
    assert not [name for name in found if "module" in name]


def test_of_a_sharded_model_the_shard_is_recorded_and_says_so(rec, watched, process_group):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    expected = {}
    for sharded in (False, True):
        model = mlp()
        if sharded:
            fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with watch(model, optimizer, recorder=rec) as observer:
            observer.step = int(sharded)
            train(model, optimizer, 1)
        expected[sharded] = watched(rec)[int(sharded)]
    found = {name.removeprefix("shard_"): value for name, value in expected[True].items()}
    assert found == pytest.approx(expected[False], rel=1e-5)
    assert {"shard_grad_norm", "shard_update_ratio/2", "lr"} <= set(expected[True])
