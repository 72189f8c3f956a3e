"""Digests of checkpoints: at once where they are small, besides the training where they are not, never of a mixture."""

from __future__ import annotations

import hashlib
import os
import threading

import pytest

from aftertrain import Recorder
from eventstream import digests, event_methods
from eventstream.digests import ChangedError, bytes_of, digest_of, state_of


@pytest.fixture
def small(monkeypatch):
    """What counts as large is small here."""
    monkeypatch.setattr(event_methods, "AT_ONCE", 10)


@pytest.fixture
def gate(monkeypatch):
    """No byte of a checkpoint is read in the background before this is set."""
    opened, real = threading.Event(), event_methods.digest_of

    def held(*arguments):
        assert opened.wait(60)
        return real(*arguments)

    monkeypatch.setattr(event_methods, "digest_of", held)
    return opened


def kinds(records):
    return [record["kind"] for record in records]


def test_the_size_of_a_large_checkpoint_is_there_at_once_and_its_digest_follows(tmp_path, lines_of, small, gate):
    rec = Recorder(tmp_path / "run", seal=False)
    (rec.path / "model.pt").write_bytes(b"w" * 5000)
    rec.checkpoint(7, rec.path / "model.pt")
    (record,) = lines_of(rec.path)
    assert (record["kind"], record["step"], record["payload"]) == ("checkpoint", 7, {"path": "model.pt", "bytes": 5000})
    rec.log(8, {"loss": 1.0})
    gate.set()
    rec.close()
    records = lines_of(rec.path)
    assert kinds(records) == ["checkpoint", "metrics", "digest", "end"]
    digest = hashlib.sha256(b"w" * 5000).hexdigest()
    assert records[2]["payload"] == {"path": "model.pt", "bytes": 5000, "sha256": digest}
    assert (records[2]["step"], rec.lost) == (7, 0)


def test_a_folder_of_files_has_the_digest_of_names_sizes_and_contents(tmp_path, lines_of, small):
    folder = tmp_path / "hf"
    (folder / "sub").mkdir(parents=True)
    (folder / "b.json").write_text("{}" * 10)
    (folder / "sub" / "a.bin").write_bytes(b"yy")
    with Recorder(tmp_path / "run", seal=False) as rec:
        rec.checkpoint(1, folder)
    expected = hashlib.sha256(b"b.json\x0020\x00" + b"{}" * 10 + b"sub/a.bin\x002\x00yy").hexdigest()
    assert lines_of(rec.path)[1]["payload"] == {"path": str(folder), "bytes": 22, "sha256": expected}


@pytest.mark.parametrize("change", ["replaced", "removed", "grown", "same size and later"])
def test_of_a_checkpoint_that_changes_before_it_is_read_no_digest_is_told(
    tmp_path, lines_of, small, gate, caught, change
):
    model = tmp_path / "last.pt"
    model.write_bytes(b"a" * 100)
    with caught() as texts:
        rec = Recorder(tmp_path / "run", seal=False)
        rec.checkpoint(1, model)
        if change == "replaced":
            (tmp_path / "new").write_bytes(b"b" * 100)
            (tmp_path / "new").replace(model)
        elif change == "removed":
            model.unlink()
        elif change == "grown":
            with model.open("ab") as file:
                file.write(b"more")
        else:
            model.write_bytes(b"b" * 100)
            os.utime(model, ns=(1, 1))
        gate.set()
        rec.close()
    word = "removed" if change == "removed" else "replaced"
    assert texts == [
        f"{rec.path}: {model}: no digest could be made: it was {word} before it was read "
        "(further cases like this are not repeated)"
    ]
    assert kinds(lines_of(rec.path)) == ["checkpoint", "end"]
    assert rec.lost == 0, "the checkpoint itself is recorded"


def test_a_checkpoint_written_anew_while_it_is_read_has_no_digest(tmp_path, monkeypatch):
    model = tmp_path / "m.pt"
    model.write_bytes(b"a" * 100)
    state, real = state_of(model), digests._update

    def meanwhile(digest, file):
        real(digest, file)
        model.write_bytes(b"b" * 101)

    monkeypatch.setattr(digests, "_update", meanwhile)
    with pytest.raises(ChangedError, match="it was replaced before it was read"):
        digest_of(model, state)
    assert bytes_of(state) == 100


def test_checkpoints_that_come_faster_than_they_are_read_are_recorded_without_digest(
    tmp_path, lines_of, small, gate, caught
):
    model = tmp_path / "m.pt"
    model.write_bytes(b"a" * 100)
    with caught() as texts:
        rec = Recorder(tmp_path / "run", seal=False)
        for step in range(50):
            rec.checkpoint(step, model)
        gate.set()
        rec.close()
    assert len(texts) == 1 and "is one of more checkpoints than can be read meanwhile; no digest" in texts[0]
    found = kinds(lines_of(rec.path))
    assert found.count("checkpoint") == 50
    assert 16 <= found.count("digest") <= 17
    assert found[-1] == "end"


def test_a_digest_that_cannot_be_written_is_counted_as_lost_at_the_end(tmp_path, lines_of, small, gate, monkeypatch):
    model = tmp_path / "m.pt"
    model.write_bytes(b"a" * 100)
    rec = Recorder(tmp_path / "run", seal=False)
    rec.checkpoint(1, model)
    real = rec._append

    def full(line):
        if b'"digest"' in line:
            raise OSError(28, "No space left on device")
        real(line)

    monkeypatch.setattr(rec, "_append", full)
    gate.set()
    with pytest.warns(Warning, match="No space left on device"):
        rec.close()
    assert lines_of(rec.path)[-1]["payload"] == {"status": "finished", "lost": 1}


def test_an_absent_checkpoint_is_lost_and_said(tmp_path, caught, lines_of):
    with caught() as texts, Recorder(tmp_path, seal=False) as rec:
        rec.checkpoint(1, tmp_path / "none.pt")
    assert len(texts) == 1 and "No such file" in texts[0]
    assert rec.lost == 1
