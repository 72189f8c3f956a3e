"""Numbers of a device: nothing waits for them at the call, and each is written with the step and time of its call.

The device is a tensor class that holds its numbers on the host, says that it lies elsewhere and counts every time that
somebody waits for it; a real one cannot count.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_map

from eventstream import deferred
from eventstream import watch as watching
from eventstream.deferred import HostCopy, Pending
from eventstream.recorder import Recorder
from eventstream.watch import watch


class Elsewhere(torch.Tensor):
    """A tensor of a device whose name is `kind`; `waits` lists what had to wait for it."""

    kind = "xpu"
    waits: list[str] = []  # noqa: RUF012 - one list for all, emptied by the tests

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), dtype=inner.dtype, device=cls.kind
        )

    def __init__(self, inner):
        self.inner = inner.detach()

    def to(self, *args, **kwargs):
        # Moving to where it is would start the real device, which is not there.
        return self if args and str(args[0]).startswith(self.kind) else super().to(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        name, options = func._schema.name.removeprefix("aten::"), dict(kwargs or {})
        to_host = name in ("_to_copy", "copy_") and cls._is_on_host(name, args, options)
        args_here, options_here = (tree_map(cls._here, given) for given in (args, options))
        if name == "_local_scalar_dense" or (to_host and not options.get("non_blocking") and not cls._queued(args)):
            cls.waits.append(name)
        if "device" in options_here:
            options_here["device"] = "cpu"
        found = func(*args_here, **options_here)
        if to_host or name == "_local_scalar_dense":
            return found
        if name.endswith("_") and not name.endswith("__"):
            return args[0]
        return tree_map(lambda given: cls(given) if isinstance(given, torch.Tensor) else given, found)

    @staticmethod
    def _here(given):
        return given.inner if isinstance(given, Elsewhere) else given

    @staticmethod
    def _is_on_host(name, args, options):
        return str(options.get("device")) == "cpu" if name == "_to_copy" else not isinstance(args[0], Elsewhere)

    @staticmethod
    def _queued(args):
        return len(args) > 2 and args[2] is True  # copy_(target, source, non_blocking)


@pytest.fixture
def waits():
    Elsewhere.waits.clear()
    return Elsewhere.waits


@pytest.fixture
def metrics(lines_of):
    def read(folder):
        return [record for record in lines_of(folder) if record["kind"] == "metrics"]

    return read


def test_a_device_is_not_waited_for_at_the_call_and_the_number_is_that_of_the_call(tmp_path, waits, metrics):
    with Recorder(tmp_path, seal=False) as rec:
        loss = Elsewhere(torch.tensor(2.5))
        before = time.time()
        rec.log(1, {"loss": loss, "lr": 0.5}, split="train")
        after = time.time()
        loss.mul_(0.0)
        rec.log(2, {"loss": 1.0})
        assert waits == []
        assert [record["step"] for record in metrics(tmp_path)] == [2], "what the host knows stands at once"
        rec.flush()
        assert len(waits) == 1
        late = metrics(tmp_path)[1]
    assert (late["step"], late["split"], late["values"]) == (1, "train", {"loss": 2.5, "lr": 0.5})
    assert before - 1e-6 <= late["time"] <= after


def test_all_numbers_of_one_type_are_fetched_together(tmp_path, waits, metrics):
    tensors = {f"m{i}": Elsewhere(torch.tensor(float(i))) for i in range(12)}
    with Recorder(tmp_path, seal=False) as rec:
        rec.log(1, tensors)
    assert len(waits) == 1
    assert metrics(tmp_path)[0]["values"] == {f"m{i}": float(i) for i in range(12)}


def test_at_most_64_records_wait(tmp_path, waits, metrics):
    with Recorder(tmp_path, seal=False) as rec:
        for step in range(200):
            rec.log(step, {"loss": Elsewhere(torch.tensor(float(step)))})
        assert len(rec._pending) == deferred.MOST_PENDING == 64
        assert len(waits) == 200 - 64
    assert [(r["step"], r["values"]["loss"]) for r in metrics(tmp_path)] == [(i, float(i)) for i in range(200)]


def test_a_number_of_the_host_is_that_of_the_call_beside_a_late_one(tmp_path, waits, metrics):
    running = torch.tensor(1.0)
    with Recorder(tmp_path, seal=False) as rec:
        rec.log(1, {"running": running, "late": Elsewhere(torch.tensor(2.0)), "array": np.float32(0.5)})
        running.add_(5.0)
    assert metrics(tmp_path)[0]["values"] == {"running": 1.0, "late": 2.0, "array": 0.5}


@pytest.mark.parametrize("make", [lambda t: t, Elsewhere])
@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        (torch.tensor(1.5, dtype=torch.bfloat16), 1.5),
        (torch.tensor(0.25, dtype=torch.float16), 0.25),
        (torch.tensor(0.1, dtype=torch.float64), 0.1),
        (torch.tensor(2**60), 2**60),
        (torch.tensor(True), 1),
        (torch.tensor([[3.0]]), 3.0),
        (torch.tensor(3.0, requires_grad=True), 3.0),
        (nn.Parameter(torch.tensor(3.0)), 3.0),
        (torch.tensor(7, dtype=torch.uint8), 7),
        (torch.tensor(math.nan), "NaN"),
        (torch.tensor(-math.inf, dtype=torch.bfloat16), "-Infinity"),
    ],
)
def test_tensors_of_one_element_of_any_type_are_numbers(tmp_path, metrics, make, tensor, expected):
    with Recorder(tmp_path, seal=False) as rec:
        rec.log(1, {"x": make(tensor)})
    assert rec.lost == 0
    (record,) = metrics(tmp_path)
    assert record["values"]["x"] == (None if isinstance(expected, str) else expected)
    assert record.get("nonfinite", {}).get("x") == (expected if isinstance(expected, str) else None)


@pytest.mark.parametrize("make", [lambda t: t, Elsewhere])
@pytest.mark.parametrize("bad", [torch.tensor(1 + 2j), torch.zeros(3), torch.zeros(0)])
def test_complex_numbers_and_whole_tensors_are_left_out_and_said(tmp_path, metrics, caught, make, bad):
    with caught() as texts, Recorder(tmp_path, seal=False) as rec:
        rec.log(1, {"bad": make(bad), "good": 1.0})
        rec.flush()
    assert len(texts) == 1
    assert "metric 'bad' could not be recorded" in texts[0]
    assert rec.lost == 1
    assert metrics(tmp_path)[0]["values"] == {"bad": None, "good": 1.0}


class ArrayOnly:
    """What an array of another library offers at least."""

    def __init__(self, value):
        self.value = value

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.value, dtype)


@pytest.mark.parametrize("value", [ArrayOnly(2.5), ArrayOnly([2.5]), np.array([[2.5]]), np.float16(2.5)])
def test_arrays_of_any_library_are_numbers(tmp_path, metrics, value):
    with Recorder(tmp_path, seal=False) as rec:
        rec.log(1, {"x": value})
    assert metrics(tmp_path)[0]["values"] == {"x": 2.5}


def test_a_device_that_fails_loses_its_record_and_no_other(tmp_path, metrics, caught):
    class Broken(Elsewhere):
        def cpu(self):
            raise RuntimeError("device-side assert triggered")

        def clone(self):
            return self

        def reshape(self, *_):
            return self

        def detach(self):
            return self

    with caught() as texts, Recorder(tmp_path, seal=False) as rec:
        rec.log_later(1, [copy := HostCopy(Broken(torch.zeros(1)))], lambda: {"x": copy.numbers()[0]})
        rec.log(2, {"x": 2.0})
    assert len(texts) == 1
    assert "device-side assert" in texts[0]
    assert rec.lost == 1
    assert [record["step"] for record in metrics(tmp_path)] == [2]


class FakeEvent:
    """An event of CUDA whose work is done when the test says so."""

    done = False
    waited = 0

    def record(self):
        self.recorded = True

    def query(self):
        return FakeEvent.done

    def synchronize(self):
        FakeEvent.waited += 1


@pytest.fixture
def cuda(monkeypatch, waits):
    """CUDA as the host sees it: pinned memory, copies that return at once, events."""
    empty = torch.empty
    monkeypatch.setattr(Elsewhere, "kind", "cuda")
    monkeypatch.setattr(FakeEvent, "done", False)
    monkeypatch.setattr(FakeEvent, "waited", 0)
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    pinned = []

    def pinning(*args, pin_memory=False, **kwargs):
        pinned.append(pin_memory)
        return empty(*args, **kwargs)

    monkeypatch.setattr(torch, "empty", pinning)
    return pinned


def test_on_cuda_numbers_go_through_pinned_memory_and_are_written_when_the_event_is_reached(tmp_path, cuda, metrics):
    with Recorder(tmp_path, seal=False) as rec:
        rec.log(1, {"loss": Elsewhere(torch.tensor(2.5))})
        rec.log(2, {"loss": 1.0})
        assert [record["step"] for record in metrics(tmp_path)] == [2]
        FakeEvent.done = True
        rec.log(3, {"loss": 0.5})
        assert [record["step"] for record in metrics(tmp_path)] == [2, 3, 1]
    assert cuda == [True]
    assert FakeEvent.waited <= 1
    assert Elsewhere.waits == []


def device_model(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(160, 160), nn.ReLU(), nn.Linear(160, 8, bias=False))
    host = {name: p.detach().clone() for name, p in model.named_parameters()}
    for name, own in host.items():
        module, _, leaf = name.rpartition(".")
        model.get_submodule(module).register_parameter(leaf, nn.Parameter(Elsewhere(own)))
    return model


def test_watching_a_device_never_waits_and_tells_the_same_as_on_the_host(tmp_path, waits, metrics, monkeypatch):
    monkeypatch.setattr(watching, "SLOW_EVERY", 10)
    found = {}
    for where in ("host", "device"):
        model = device_model()
        if where == "host":
            model = nn.Sequential(nn.Linear(160, 160), nn.ReLU(), nn.Linear(160, 8, bias=False))
            theirs = dict(device_model().named_parameters())
            model.load_state_dict({name: p.inner for name, p in theirs.items()})
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, foreach=False)
        noise = torch.Generator().manual_seed(3)
        with Recorder(tmp_path / where, seal=False) as rec, watch(model, optimizer, every=10, recorder=rec):
            waits.clear()
            for step in range(61):
                for parameter in model.parameters():
                    gradient = torch.randn(parameter.shape, generator=noise)
                    gradient[0] = math.nan if step == 60 else 0.0
                    parameter.grad = gradient if where == "host" else Elsewhere(gradient)
                if step < 60:  # a norm that is NaN would make all gradients NaN
                    nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=False)
                optimizer.step()
            assert waits == []
            rec.flush()
        found[where] = metrics(tmp_path / where)
    assert [r["step"] for r in found["device"]] == [r["step"] for r in found["host"]] == list(range(0, 61, 10))
    for ours, theirs in zip(found["device"], found["host"], strict=True):
        assert ours.get("nonfinite") == theirs.get("nonfinite")
        mine, others = ({k: v for k, v in r["values"].items() if v is not None} for r in (ours, theirs))
        assert mine == pytest.approx(others, rel=1e-5)
    assert found["device"][5]["values"]["dead_units/0"] == pytest.approx(1 / 160)
    assert found["device"][6]["values"]["nonfinite_grads"] == 160 + 1 + 160


def test_watching_on_the_host_reads_no_number_by_itself(tmp_path):
    """On the host there is nothing to wait for; what reads single numbers there would wait on a device."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Counting(TorchDispatchMode):
        reads = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            Counting.reads += func._schema.name == "aten::_local_scalar_dense"
            return func(*args, **(kwargs or {}))

    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Recorder(tmp_path, seal=False) as rec, watch(model, optimizer, every=1, recorder=rec), Counting():
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.ones(2, 8)).sum().backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        assert Counting.reads == 0
        torch.ones(()).item()
        assert Counting.reads == 1, "the count counts"


def test_pending_records_are_written_in_the_order_given():
    written = []
    pending = Pending()
    for number in range(5):
        pending.add([], lambda number=number: written.append(number))
    assert written == [0, 1, 2, 3, 4]
    assert not pending


def test_of_a_killed_process_every_record_of_the_host_is_there_and_at_most_the_pending_are_missing(tmp_path):
    """A real child, killed while it records: the promise of docs/event-stream.md for both sorts of number."""
    code = """
        import sys, torch
        sys.path.insert(0, sys.argv[2])
        from test_deferred import Elsewhere
        from eventstream.recorder import Recorder
        rec = Recorder(sys.argv[1], seal=False)
        for step in range(10**9):
            rec.log(step, {"late": Elsewhere(torch.tensor(float(step)))})
            rec.log(step, {"loss": float(step)})
            print(step, flush=True)
    """
    root = Path(__file__).parents[2]
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "run"), str(Path(__file__).parent)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
    )
    assert child.stdout is not None
    for line in child.stdout:
        if int(line) >= 300:
            break
    child.send_signal(signal.SIGKILL)
    returned = int(line)
    for line in child.stdout:
        if line.endswith(b"\n"):
            returned = int(line)
    child.stdout.close()
    assert child.wait() == -signal.SIGKILL
    text = (tmp_path / "run" / "rank00000-attempt0000-000000.jsonl").read_bytes()
    records = [json.loads(line) for line in text.split(b"\n")[:-1]]
    loss = [r["step"] for r in records if "loss" in r.get("values", {})]
    late = [r["step"] for r in records if "late" in r.get("values", {})]
    assert loss[: returned + 1] == list(range(returned + 1))
    assert late == list(range(len(late)))
    assert len(late) >= returned - deferred.MOST_PENDING
