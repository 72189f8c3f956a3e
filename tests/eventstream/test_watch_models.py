"""Models, optimizers and wrappers of all sorts under `watch`."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from eventstream import watch as watching
from eventstream.recorder import Recorder
from eventstream.watch import watch
from tests.eventstream.watched_models import Slow, mlp, norm, train


@pytest.fixture(autouse=True)
def _often(monkeypatch):
    """Tests are short: what is slow is measured twice as often as in a training."""
    monkeypatch.setattr(watching, "SLOW_EVERY", 10)


@pytest.fixture
def rec(tmp_path):
    with Recorder(tmp_path / "run", seal=False) as recorder:
        yield recorder


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
