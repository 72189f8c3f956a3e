"""A pickle that would run something is read, the call is listed, and nothing runs."""

from __future__ import annotations

import os
import pickle
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from parsers.checkpoints.checkpoint import Checkpoint
from parsers.checkpoints.opening import open_checkpoint
from parsers.checkpoints.pickle_risks import risk_of
from tests.parsers.checkpoints.pickles import Calls, by_hand, system
from tests.parsers.checkpoints.torch_files import WAYS, bits, held, saved

HOW = list(by_hand(Path("x")))


def dangerous(checkpoint: Checkpoint) -> list[str]:
    return [call.name for call in checkpoint.unsafe if call.risk == "dangerous"]


@pytest.fixture
def trace(tmp_path: Path) -> Any:
    """The file that a payload would make, which must not be there in the end."""
    yield tmp_path / "the payload ran"
    assert not (tmp_path / "the payload ran").exists()


def test_the_payloads_of_these_tests_work_where_they_are_opened_the_ordinary_way(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(system(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("way", WAYS)
def test_a_call_hidden_deep_in_an_object_is_listed_and_the_tensors_are_read(
    tmp_path: Path, trace: Path, way: str
) -> None:
    weight = torch.arange(6.0).reshape(2, 3)
    tree = {"state_dict": {"w": weight}, "callbacks": [{"deep": ({"er": [system(trace)]},)}], "epoch": 3}
    with open_checkpoint(saved(tmp_path / "a.ckpt", tree, way)) as checkpoint:
        (call,) = checkpoint.unsafe
        assert (call.name, call.risk) == ("posix.system", "dangerous")
        assert str(trace) in call.arguments
        assert held(checkpoint, "state_dict.w") == bits(weight)
        assert checkpoint.values["epoch"] == 3


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("ending", ["pkl", "pt", "zip"])
def test_every_way_to_call_is_listed_as_dangerous(tmp_path: Path, trace: Path, how: str, ending: str) -> None:
    raw, file = by_hand(trace)[how], tmp_path / f"a.{ending}"
    if ending == "zip":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("a/data.pkl", raw)
    else:
        file.write_bytes(raw)
    with open_checkpoint(file) as checkpoint:
        assert dangerous(checkpoint)


@pytest.mark.parametrize("place", ["before", "after the tensors", "far behind"])
def test_every_pickle_of_a_legacy_file_is_read_for_its_calls(tmp_path: Path, trace: Path, place: str) -> None:
    file = saved(tmp_path / "a.pt", {"w": torch.ones(4)}, "legacy")
    evil = pickle.dumps(system(trace), protocol=2)
    if place == "before":
        file.write_bytes(pickle.dumps({"step": 1}) + evil + file.read_bytes())
    else:
        file.write_bytes(file.read_bytes() + (b"" if place == "after the tensors" else pickle.dumps(3)) + evil)
    with open_checkpoint(file) as checkpoint:
        assert dangerous(checkpoint) == ["posix.system"]
        if place != "before":
            assert any("behind the last storage" in damage.reason for damage in checkpoint.damage)
            assert held(checkpoint, "w") == bits(torch.ones(4))


@pytest.mark.parametrize("position", [0, 1, 2, 4])
def test_no_pickle_of_a_legacy_file_is_too_early_or_late_to_be_read(tmp_path: Path, trace: Path, position: int) -> None:
    file = saved(tmp_path / "a.pt", {"w": torch.ones(4)}, "legacy")
    raw, parts = file.read_bytes(), []
    for _ in range(5):
        value = raw.index(b".", 0)
        end = next(n for n in range(value + 1, len(raw) + 1) if _loads(raw[:n]))
        parts.append(raw[:end])
        raw = raw[end:]
    parts[position] = pickle.dumps([system(trace), 5], protocol=2)
    file.write_bytes(b"".join(parts) + raw)
    with open_checkpoint(file) as checkpoint:
        assert dangerous(checkpoint) == ["posix.system"]


def _loads(raw: bytes) -> bool:
    class Blind(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            return lambda *args: None

        def persistent_load(self, key: Any) -> None:
            return None

    import io

    try:
        Blind(io.BytesIO(raw)).load()
    except (EOFError, pickle.UnpicklingError):
        return False
    return True


@pytest.mark.parametrize("second", ["a/data.pkl", "a/DATA.PKL", "b/data.pkl"])
@pytest.mark.parametrize("evil_first", [True, False])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_zip_with_two_pickles_is_damage_and_both_are_read_for_their_calls(
    tmp_path: Path, trace: Path, second: str, evil_first: bool
) -> None:
    good, evil = pickle.dumps({"epoch": 3}, protocol=2), pickle.dumps(system(trace), protocol=2)
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("a/data.pkl", evil if evil_first else good)
        archive.writestr(second, good if evil_first else evil)
    with open_checkpoint(tmp_path / "a.pt") as checkpoint:
        assert dangerous(checkpoint) == ["posix.system"]
        assert any("2 pickles are called data.pkl" in damage.reason for damage in checkpoint.damage)


def test_a_pickle_under_another_local_name_is_damage(tmp_path: Path, trace: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps(system(trace), protocol=2))
    raw = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "a.pt").write_bytes(raw.replace(b"a/data.pkl", b"a/text.txt", 1))
    with open_checkpoint(tmp_path / "a.pt") as checkpoint:
        assert dangerous(checkpoint) == ["posix.system"]
        assert any("its own header 'a/text.txt'" in damage.reason for damage in checkpoint.damage)


@pytest.mark.parametrize("bit", [0x01, 0x40])
def test_flags_that_make_other_readers_give_up_hide_no_call(tmp_path: Path, trace: Path, bit: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps(system(trace), protocol=2))
    raw = bytearray((tmp_path / "a.pt").read_bytes())
    raw[6] |= bit  # of the local header: some scanners believe in a password and leave the entry alone
    (tmp_path / "a.pt").write_bytes(raw)
    with open_checkpoint(tmp_path / "a.pt") as checkpoint:
        assert dangerous(checkpoint) == ["posix.system"]


def test_a_call_inside_the_bytes_of_an_inner_file_is_listed(tmp_path: Path, trace: Path) -> None:
    inner = pickle.dumps(system(trace), protocol=2)
    file = tmp_path / "a.pkl"
    file.write_bytes(pickle.dumps({"w": Calls(torch.storage._load_from_bytes, inner)}))
    with open_checkpoint(file) as checkpoint:
        (call,) = checkpoint.unsafe
        assert (call.name, call.member) == ("posix.system", "pickle 1, inner pickle 1")


def test_a_dangerous_name_is_listed_though_nothing_calls_it(tmp_path: Path) -> None:
    with open_checkpoint(saved(tmp_path / "a.pkl", {"hook": subprocess.run}, "pickle 4")) as checkpoint:
        assert [(call.name, call.arguments) for call in checkpoint.unsafe] == [("subprocess.run", "")]


def test_many_harmless_classes_do_not_push_a_dangerous_call_out_of_the_list(tmp_path: Path, trace: Path) -> None:
    flood = b"".join(b"cmodule%d\nClass\n)R" % n for n in range(5000))
    file = tmp_path / "a.pkl"
    file.write_bytes(b"\x80\x02(" + flood + by_hand(trace)["global and reduce"][:-1] + b"l.")
    with open_checkpoint(file) as checkpoint:
        assert dangerous(checkpoint) == ["posix.system"]
        assert len(checkpoint.unsafe) < 500


def test_many_harmless_names_do_not_push_a_dangerous_name_out_of_the_list(tmp_path: Path) -> None:
    flood = b"".join(b"cmodule%d\nClass\n" % n for n in range(5000))
    file = tmp_path / "a.pkl"
    file.write_bytes(b"\x80\x02(" + flood + b"cposix\nsystem\nl.")
    with open_checkpoint(file) as checkpoint:
        assert dangerous(checkpoint) == ["posix.system"]


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "popen"),
        ("nt", "system"),
        ("builtins", "exec"),
        ("importlib", "import_module"),
        ("importlib.machinery", "SourceFileLoader"),
        ("runpy", "run_path"),
        ("shutil", "rmtree"),
        ("socket", "create_connection"),
        ("urllib.request", "urlopen"),
        ("pickle", "loads"),
        ("types", "CodeType"),
        ("operator", "attrgetter"),
        ("_io", "FileIO"),
        ("pydoc", "pipepager"),
        ("cProfile", "run"),
        ("torch.hub", "load"),
        ("torch", "load"),
        ("torch.serialization", "load"),
        ("torch.utils.cpp_extension", "load_inline"),
        ("torch.fx.graph_module", "reduce_graph_module"),
        ("numpy", "load"),
        ("numpy.f2py.crackfortran", "getlincoef"),
        ("numpy.testing._private.utils", "runstring"),
        ("cloudpickle.cloudpickle", "_make_function"),
        ("dill._dill", "_create_function"),
        ("logging", "FileHandler"),
        ("torch.serialization", "os.system"),
        ("collections", "__builtins__.eval"),
    ],
)
def test_callables_that_run_code_or_reach_out_are_dangerous(module: str, name: str) -> None:
    assert risk_of(module, name) == "dangerous"


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("transformers.training_args", "TrainingArguments"),
        ("lightning.fabric.utilities.data", "AttributeDict"),
        ("my.models", "Encoder"),
        ("torch.nn.modules.linear", "Linear"),
        ("torch.optim.adamw", "AdamW"),
        ("osmnx", "Graph"),
        ("model.system", "Config"),
        ("code.models.net", "Net"),
        ("trace.models", "Encoder"),
    ],
)
def test_classes_of_libraries_are_unknown_and_not_dangerous(module: str, name: str) -> None:
    assert risk_of(module, name) == "unknown"


def test_os_is_looked_up_by_its_name_of_this_system() -> None:
    assert os.system.__module__ == "posix"  # what `by_hand` plants is what `dumps` would write here
