"""What is said of embeddings: planted faults are found, healthy sets stay silent, bad input is counted or refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from matplotlib.axes import Axes
from numpy.typing import NDArray

from analysis.embeddings.closeness import closeness
from analysis.embeddings.mislabelled import suspects
from analysis.embeddings.vectors import prepare
from analysis.speaker_embeddings import SpeakerEmbeddings, speaker_embeddings
from eventstream.errors import InputError
from parsers.finish import finish
from parsers.run import Run

Make = Callable[..., tuple[NDArray[Any], NDArray[Any], set[int]]]


def kinds(result: SpeakerEmbeddings) -> dict[str, str]:
    return {f.kind: f.severity for f in result.findings}


def write(path: Path, X: NDArray[Any], labels: NDArray[Any] | None, *, dtype: Any = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    vector = pl.Series("vector", X.astype(np.float32).tolist(), dtype=dtype or pl.Array(pl.Float32, X.shape[1]))
    text = pl.Series("label", [None] * len(X) if labels is None else [str(v) for v in labels], dtype=pl.String)
    paths = pl.Series("path", [f"wav/{i}.wav" for i in range(len(X))])
    pl.DataFrame([text, paths, vector]).write_parquet(path)


def run_of(folder: Path, events: list[tuple[int, str]], **columns: Any) -> Run:
    rows = {
        "kind": ["embeddings"] * len(events),
        "step": [step for step, _ in events],
        "payload": [json.dumps({"file": name, "count": 1, "dim": 1}) for _, name in events],
    }
    return finish("exp", str(folder), "event-stream", events=pl.DataFrame({**rows, **columns}))


def test_clean_sets_are_silent_over_fifty_seeds(voices: Make):
    for seed in range(50):
        X, labels, _ = voices(seed, noise=0.5)
        result = speaker_embeddings(X, labels, bootstrap=0)
        assert result.findings == () == result.not_applicable, (seed, result)


def test_overlapping_speakers_give_at_most_few_suspects_over_fifty_seeds(voices: Make):
    """The noise exceeds the speakers, and two sound alike: hard, but labelled right. 5 of 60,000 at most."""
    found = rows = 0
    for seed in range(50):
        X, labels, _ = voices(seed, noise=1.5)
        twin = X.copy()
        twin[20:40] = X[:20].mean(axis=0) + np.random.default_rng(seed).normal(size=(20, X.shape[1]))
        for vectors in (prepare(X, labels), prepare(twin, labels)):
            told = suspects(vectors, closeness(vectors))
            found, rows = found + told.frame.height, rows + told.judged
    assert rows == 60_000 and found <= 5


@pytest.mark.parametrize("swapped", [0.01, 0.03, 0.1])
@pytest.mark.parametrize(("noise", "recall"), [(0.5, 0.97), (1.0, 0.97), (1.5, 0.75)])
def test_swapped_labels_are_found_and_little_else(voices: Make, swapped: float, noise: float, recall: float):
    hits = false = planted = 0
    for seed in range(6):
        X, labels, wrong = voices(seed, noise=noise, swapped=swapped)
        found = set(speaker_embeddings(X, labels, bootstrap=0).mislabelled["row"].to_list())
        hits, false, planted = hits + len(found & wrong), false + len(found - wrong), planted + len(wrong)
    assert hits >= recall * planted and false <= 0.02 * max(hits, 50)


def test_a_swapped_label_is_told_with_its_path_and_the_true_speaker(voices: Make, tmp_path: Path):
    X, labels, _ = voices(0, noise=0.5)
    labels = labels.copy()
    labels[[3, 50, 51, 52, 200, 201, 202]] = 7
    write(tmp_path / "e.parquet", X, labels)
    result = speaker_embeddings(tmp_path / "e.parquet")
    told = result.mislabelled.filter(pl.col("row") == 3).row(0, named=True)
    assert (told["path"], told["label"], told["suggested"]) == ("wav/3.wav", "7", "0")
    assert kinds(result)["mislabelled-sample"] == "warning"
    (finding,) = (f for f in result.findings if f.kind == "mislabelled-sample")
    assert finding.evidence["utterances"] == 7 and finding.suggestions


@pytest.mark.parametrize("labelled", [True, False])
def test_vectors_that_point_one_way_have_collapsed(voices: Make, labelled: bool):
    rng = np.random.default_rng(0)
    X, labels, _ = voices(1, noise=0.5)
    result = speaker_embeddings(1 + 1e-3 * rng.normal(size=X.shape), labels if labelled else None, bootstrap=0)
    assert kinds(result)["embedding-collapse"] == "critical" and result.status == "critical"
    assert result.findings[0].evidence["mean_cosine"] > 0.999


def test_vectors_in_two_dimensions_of_sixty_four_have_collapsed(voices: Make):
    X, labels, _ = voices(2, noise=0.5)
    X[:, 2:] = 0.0
    result = speaker_embeddings(X, labels, bootstrap=0)
    assert kinds(result)["embedding-collapse"] == "critical"
    assert result.frame["effective_rank"].item() <= 2.01


def test_identical_vectors_have_collapsed():
    result = speaker_embeddings(np.ones((40, 16)), np.repeat(range(4), 10))
    assert kinds(result)["embedding-collapse"] == "critical" and result.frame["effective_rank"].item() == 0.0


def test_a_narrow_cone_whose_speakers_are_told_apart_is_a_warning_only(voices: Make):
    X, labels, _ = voices(3, noise=0.3)
    result = speaker_embeddings(X + 8.0, labels, bootstrap=0)
    assert result.frame["mean_cosine"].item() > 0.95 and result.frame["eer"].item() < 0.1
    assert kinds(result)["embedding-collapse"] == "warning"


def test_few_tight_speakers_have_not_collapsed_though_they_span_few_dimensions(voices: Make):
    for labelled in (True, False):
        X, labels, _ = voices(4, speakers=12, dim=192, noise=0.1)
        result = speaker_embeddings(X, labels if labelled else None, bootstrap=0)
        assert "embedding-collapse" not in kinds(result)


def test_low_separation_says_which_threshold_failed_and_thresholds_can_be_set(voices: Make):
    X, labels, _ = voices(5, noise=1.5)
    result = speaker_embeddings(X, labels, bootstrap=0)
    (finding,) = (f for f in result.findings if f.kind == "low-separation")
    assert finding.severity == "warning" and "is not above 0.4" in finding.message and "above 0.7" in finding.message
    assert "low-separation" not in kinds(speaker_embeddings(X, labels, same=0.2, good=0.2, bootstrap=0))


def test_a_good_separation_with_a_missed_similarity_is_an_info_only(voices: Make):
    X, labels, _ = voices(6, noise=0.8)
    result = speaker_embeddings(X, labels, bootstrap=0)
    assert result.frame["separation"].item() > 0.5 and kinds(result) == {"low-separation": "info"}
    assert result.status == "healthy"


def test_an_early_checkpoint_does_not_alarm_when_the_last_one_is_fine(voices: Make, tmp_path: Path):
    X, labels, _ = voices(7, noise=0.4)
    write(tmp_path / "embeddings/0.parquet", np.ones_like(X), labels)
    write(tmp_path / "embeddings/9.parquet", X, labels)
    healthy = speaker_embeddings(run_of(tmp_path, [(0, "embeddings/0.parquet"), (900, "embeddings/9.parquet")]))
    assert healthy.findings == () and healthy.frame["step"].to_list() == [0, 900]
    assert healthy.frame["separation"].to_list() == pytest.approx([0.0, 0.86], abs=0.05)
    ill = speaker_embeddings(run_of(tmp_path, [(0, "embeddings/9.parquet"), (900, "embeddings/0.parquet")]))
    assert ill.status == "critical" and {f.last_step for f in ill.findings} == {900}


def test_files_of_several_ranks_at_one_step_are_one_set_and_splits_are_kept_apart(voices: Make, tmp_path: Path):
    X, labels, _ = voices(8, noise=0.4)
    write(tmp_path / "a.parquet", X[:300], labels[:300])
    write(tmp_path / "b.parquet", X[300:], labels[300:])
    events = [(5, "a.parquet"), (5, "b.parquet"), (5, "a.parquet")]
    result = speaker_embeddings(run_of(tmp_path, events, rank=[0, 1, 0], split=["", "", "eval"]))
    assert sorted(result.frame.select("split", "n").rows()) == [("", 600), ("eval", 300)]


def test_a_resumed_run_is_judged_on_its_living_branch(voices: Make, tmp_path: Path):
    X, labels, _ = voices(9, noise=0.4)
    write(tmp_path / "bad.parquet", np.ones_like(X), labels)
    write(tmp_path / "good.parquet", X, labels)
    run = run_of(tmp_path, [(10, "good.parquet"), (30, "bad.parquet"), (20, "good.parquet")], attempt=[0, 0, 1])
    result = speaker_embeddings(run)
    assert result.frame["step"].to_list() == [10, 20] and result.findings == ()


def test_unreadable_files_are_named_and_the_rest_is_judged(voices: Make, tmp_path: Path):
    X, labels, _ = voices(10, noise=0.4)
    write(tmp_path / "run/good.parquet", X, labels)
    write(tmp_path / "outside.parquet", X, labels)
    (tmp_path / "run/cut.parquet").write_bytes((tmp_path / "run/good.parquet").read_bytes()[:500])
    (tmp_path / "run/empty.parquet").touch()
    pl.DataFrame({"x": [1]}).write_parquet(tmp_path / "run/other.parquet")
    pl.DataFrame({"vector": ["a"]}).write_parquet(tmp_path / "run/text.parquet")
    names = ["good", "cut", "empty", "other", "text", "missing"]
    events = [(i, f"{name}.parquet") for i, name in enumerate(names)] + [(9, "../outside.parquet")]
    result = speaker_embeddings(run_of(tmp_path / "run", events))
    assert result.frame["step"].to_list() == [0] and result.findings == ()
    reasons = {u.file: u.reason for u in result.unread}
    assert set(reasons) == {*(f"{n}.parquet" for n in names[1:]), "../outside.parquet"}
    assert "outside the run" in reasons["../outside.parquet"] and "no column 'vector'" in reasons["other.parquet"]
    nothing = speaker_embeddings(run_of(tmp_path / "run", events[1:]))
    assert {n.kind for n in nothing.not_applicable} == {"embedding-collapse", "low-separation", "mislabelled-sample"}
    assert "none of 6 files" in nothing.not_applicable[0].reason


def test_payloads_that_name_no_file_are_told(tmp_path: Path):
    events = pl.DataFrame({"kind": ["embeddings"] * 3, "payload": ["[]", '{"count": 3}', "{"], "step": [1, 2, 3]})
    result = speaker_embeddings(finish("exp", str(tmp_path), "event-stream", events=events))
    assert len(result.unread) == 3 and not result.frame.height


def test_rows_without_direction_are_left_out_and_counted(voices: Make):
    X, labels, _ = voices(11, noise=0.5)
    X[0, 0], X[1, 3], X[2] = np.nan, np.inf, 0.0
    X[3], X[4] = X[3] * 1e300, X[4] * 1e-300
    result = speaker_embeddings(X, labels)
    row = result.frame.row(0, named=True)
    assert (row["given"], row["n"], row["rejected"]) == (600, 597, 3) and result.status == "healthy"
    clean = speaker_embeddings(np.delete(X, [0, 1, 2], 0), np.delete(labels, [0, 1, 2]))
    assert clean.frame["eer"].item() == row["eer"]


def test_rows_of_another_length_null_vectors_and_null_labels_are_counted(tmp_path: Path, voices: Make):
    X, labels, _ = voices(12, noise=0.4)
    vectors: list[Any] = X.tolist()
    vectors[0], vectors[1], vectors[2] = [1.0, 2.0], None, [None, *vectors[2][1:]]
    text = [None if i == 5 else str(label) for i, label in enumerate(labels)]
    frame = pl.DataFrame({"vector": pl.Series(vectors, dtype=pl.List(pl.Float64)), "label": text})
    frame.write_parquet(tmp_path / "e.parquet")
    row = speaker_embeddings(tmp_path / "e.parquet").frame.row(0, named=True)
    assert (row["given"], row["n"], row["rejected"], row["labelled"]) == (600, 597, 3, 596)


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (None, "no labels"),
        (["a"] * 30, "same label"),
        (list(range(30)), "none of 30 speakers has two utterances"),
        ([None] * 30, "no labels"),
    ],
)
def test_without_pairs_only_collapse_is_judged_and_the_reason_is_told(labels: Any, reason: str):
    X = np.random.default_rng(0).normal(size=(30, 16))
    result = speaker_embeddings(X, labels)
    told = {n.kind: n.reason for n in result.not_applicable}
    assert set(told) == {"low-separation", "mislabelled-sample"} and reason in told["low-separation"]
    assert result.frame["eer"].item() is None and result.similarities().height == 0
    assert isinstance(result.plot(), Axes)


@pytest.mark.parametrize("shape", [(0, 8), (0, 0), (1, 8), (2, 8), (5, 0), (3, 1)])
def test_tiny_and_empty_sets_are_answered_in_the_same_form(shape: tuple[int, int]):
    result = speaker_embeddings(np.ones(shape), ["a", "b", "a", "b", "a"][: shape[0]])
    reference = speaker_embeddings(finish("r", "r", "jsonl"))
    assert result.frame.schema == reference.frame.schema and result.speakers.schema == reference.speakers.schema
    assert result.findings == () and "embedding-collapse" in {n.kind for n in result.not_applicable}
    assert result.map().schema == reference.map().schema
    assert result.clustering().schema == reference.clustering().schema
    assert isinstance(result.plot(), Axes) and isinstance(result.plot(kind="steps"), Axes)


def test_duplicated_vectors_are_utterances_like_others():
    X = np.repeat(np.eye(8), 4, axis=0)
    row = speaker_embeddings(X, np.repeat(list("abcdefgh"), 4)).frame.row(0, named=True)
    assert (row["eer"], row["same_mean"], row["different_mean"], row["silhouette"]) == (0.0, 1.0, 0.0, 1.0)


def test_labels_of_any_type_are_names_and_missing_ones_are_none():
    X = np.random.default_rng(0).normal(size=(20, 8))
    mixed: list[Any] = [1, "1", 2.5, np.int64(1), None, float("nan")] + ["b"] * 14
    v = prepare(X, mixed)
    assert (v.names, v.labelled, v.counts.tolist()) == (("1", "2.5", "b"), 18, [3, 1, 14])
    assert prepare(X, np.array(mixed, dtype=object)).names == v.names
    assert prepare(X, pl.Series([None, *"b" * 19])).labelled == 19


def test_bad_parameters_are_refused_with_what_is_allowed(voices: Make, tmp_path: Path):
    X, labels, _ = voices(0)
    for wrong, message in (
        ({"p_target": 1.5}, "p_target=1.5"),
        ({"same": 7}, "same=7"),
        ({"good": 0.6, "excellent": 0.5}, "below good"),
        ({"bootstrap": -1}, "bootstrap=-1"),
        ({"map": "umapp"}, "did you mean 'umap'"),
        ({"sample": 1}, "sample=1"),
    ):
        with pytest.raises(ValueError, match=message):
            speaker_embeddings(X, labels, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="599 labels for 600 vectors"):
        speaker_embeddings(X, labels[:-1])
    with pytest.raises(ValueError, match="two dimensions"):
        speaker_embeddings(X[0], None)
    with pytest.raises(ValueError, match="real numbers"):
        prepare(np.array([["a"]]))
    with pytest.raises(InputError, match=r"nothing\.parquet"):
        speaker_embeddings(tmp_path / "nothing.parquet")
    result = speaker_embeddings(X, labels, bootstrap=0)
    with pytest.raises(ValueError, match="did you mean 'kmeans'"):
        result.clustering(("kmean",))
    with pytest.raises(ValueError, match="did you mean 'steps'"):
        result.plot(kind="step")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown map 'mds'"):
        result.map("mds")  # type: ignore[arg-type]


def test_the_speaker_table_names_the_nearest_other_speaker(voices: Make):
    X, labels, _ = voices(13, speakers=10, noise=0.3)
    X[labels == 4] = X[labels == 2] + 0.2
    table = speaker_embeddings(X, [f"s{v}" for v in labels]).speakers
    assert table["speaker"].to_list() == [f"s{v}" for v in range(10)] and (table["n"] == 20).all()
    nearest = dict(table.select("speaker", "nearest").rows())
    assert nearest["s4"] == "s2" and nearest["s2"] == "s4"
    assert table.filter(~pl.col("speaker").is_in(["s2", "s4"]))["error"].to_list() == [0.0] * 8


def test_histograms_hold_every_pair_and_the_title_says_eer_interval_and_separation(voices: Make):
    X, labels, _ = voices(14, noise=1.5)
    result = speaker_embeddings(X, labels)
    row = result.frame.row(0, named=True)
    table = result.similarities(bins=50)
    assert table.height == 50 and table["same"].sum() == row["same_pairs"]
    assert table["different"].sum() == row["different_pairs"]
    width = (table["high"] - table["low"]).to_numpy()
    assert (table["same_density"].to_numpy() * width).sum() == pytest.approx(1.0)
    assert row["eer_low"] < row["eer"] < row["eer_high"]
    title = result.plot().get_title()
    assert f"EER {row['eer']:.1%} (95 %" in title and f"separation {row['separation']:.2f}" in title


@pytest.mark.parametrize("kind", ["pca", "umap", "tsne"])
def test_maps_are_seeded_samples_with_every_speaker(voices: Make, kind: Any):
    X, labels, _ = voices(15, speakers=5, noise=0.3)
    result = speaker_embeddings(X, labels, sample=50, bootstrap=0)
    points = result.map(kind)
    assert points.height == 50 and points["label"].value_counts()["count"].to_list() == [10] * 5
    assert (labels[points["row"].to_numpy()].astype(str) == points["label"].to_numpy()).all()
    again = speaker_embeddings(X, labels, sample=50, bootstrap=0, map=kind)
    assert again.map(kind).equals(points)
    ax = again.plot(kind="map", map=kind)
    assert "50 of 100" in ax.get_title()
    spread = points.group_by("label").agg(pl.col("x").std(), pl.col("y").std())
    assert spread["x"].median() < points["x"].std(), "a speaker lies together"


def test_a_hostile_label_is_shown_as_text(voices: Make):
    X, labels, _ = voices(16, speakers=3, noise=0.3)
    ax = speaker_embeddings(X, [["$x^{", "<script>", "_hidden\n"][v] for v in labels]).plot(kind="map")
    ax.figure.canvas.draw()


def test_a_run_without_embeddings_and_a_small_one_load_nothing_heavy(tmp_path: Path, voices: Make):
    X, labels, _ = voices(17, noise=0.4, each=5)
    write(tmp_path / "e.parquet", X, labels)
    code = (
        "import sys; from analysis.speaker_embeddings import speaker_embeddings; from parsers.finish import finish\n"
        "assert speaker_embeddings(finish('r', 'r', 'jsonl')).not_applicable\n"
        f"assert speaker_embeddings({str(tmp_path / 'e.parquet')!r}).status == 'healthy'\n"
        "print([m for m in ('numba', 'pandas', 'sklearn', 'matplotlib', 'scipy', 'torch', 'umap') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
