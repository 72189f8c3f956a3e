"""Tables in text: what Lightning, Keras, Ultralytics and spreadsheets write, in any dialect, whole and damaged."""

from __future__ import annotations

import csv
import io
import logging
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventstream.errors import InputError
from parsers.content.table_text import find_dialect
from parsers.content.yamltext import UnreadableYamlError, parse_yaml
from parsers.loading import load, load_all
from parsers.run import Run
from tests.parsers.wild import disagreement, wild

#: Eight lines that unfold to forty million values.
LAUGHS = f"a: &a [{'x,' * 9}]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n" for before, name in zip("abcdefg", "bcdefgh", strict=True)
)
COLUMNS = ["step", "epoch", "split", "metric", "tag", "value"]


def save(folder: Path, content: str | bytes, name: str = "run.csv") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def rows(run: Run, *columns: str) -> list[tuple[Any, ...]]:
    return run.scalars.select(columns or ("step", "tag", "value")).rows()


def table(count: int, *, end: str = "\r\n", separator: str = ",") -> str:
    lines = [["step", "loss", "val_loss"]]
    lines += [[str(i), repr(3.0 / (i + 1)), repr(2.5 / (i + 1)) if i % 3 == 0 else ""] for i in range(count)]
    return "".join(separator.join(line) + end for line in lines)


@pytest.fixture(scope="session")
def lightning_logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that two trainings of Lightning left behind through CSVLogger."""
    import torch
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import LearningRateMonitor
    from lightning.pytorch.loggers import CSVLogger

    class Net(LightningModule):
        def __init__(self, lr: float) -> None:
            super().__init__()
            self.save_hyperparameters({"lr": lr, "activation": torch.relu, "shape": (4, 1)})
            self.layer = torch.nn.Linear(4, 1)

        def training_step(self, batch: Any, _: int) -> Any:
            loss = self.layer(batch).square().mean()
            self.log("train_loss", loss, on_step=True, on_epoch=True)
            return loss

        def validation_step(self, batch: Any, _: int) -> None:
            self.log("val_loss", self.layer(batch).square().mean())

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]

    folder = tmp_path_factory.mktemp("pl")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.manual_seed(0)
    data = torch.utils.data.DataLoader(torch.randn(24, 4), batch_size=4)
    for _ in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of workers and of the pickles of its own hyper-parameters
            Trainer(
                max_epochs=3, logger=CSVLogger(folder), log_every_n_steps=2, accelerator="cpu",
                callbacks=[LearningRateMonitor()], enable_progress_bar=False, enable_model_summary=False,
                enable_checkpointing=False,
            ).fit(Net(0.1), data, data)  # fmt: skip
    return folder / "lightning_logs"


def test_each_version_of_lightning_is_a_run_with_every_cell_that_holds_a_number(lightning_logs: Path) -> None:
    runs = load_all(lightning_logs)
    assert [(r.name, r.format) for r in runs] == [
        ("lightning_logs/version_0", "lightning"), ("lightning_logs/version_1", "lightning"),
    ]  # fmt: skip
    with (lightning_logs / "version_0" / "metrics.csv").open(newline="") as file:
        expected = [
            (int(row["step"]), tag, float(text))
            for row in csv.DictReader(file)
            for tag, text in row.items()
            if text and tag not in ("step", "epoch")
        ]
    run = runs[0]
    assert sorted(rows(run)) == sorted(expected) and run.rejects.is_empty()
    assert run.series("loss", split="eval").height == 3
    assert run.series("loss_step", split="train")["step"].to_list() == [1, 3, 5, 7, 9, 11, 13, 15, 17]


def test_hyperparameters_that_name_python_objects_are_text_and_run_nothing(lightning_logs: Path) -> None:
    config = load(lightning_logs / "version_0").config
    assert config["lr"] == 0.1 and "relu" in config["activation"] and config["shape"] == [4, 1]


def test_yaml_never_runs_what_it_names(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    hostile = f"lr: 0.1\nx: !!python/object/apply:os.system ['touch {mark}']\ny: !!python/object/new:os.system [a]\n"
    save(tmp_path, "step,loss\n1,2.0\n2,1.0\n", "metrics.csv")
    save(tmp_path, hostile, "hparams.yaml")
    run = load(tmp_path)
    assert not mark.exists() and run.config["lr"] == 0.1
    assert run.config["x"] == {"!": "python/object/apply:os.system", "items": [f"touch {mark}"]}


@pytest.mark.parametrize(
    "text",
    [
        "a: [1, 2",
        "\t: x",
        "a: &a [*a, *a]",
        "? [1, 2]\n: 3",
        "d: 2020-13-45",
        "[" * 5000,
        LAUGHS,
        "\x00\x01",
        "x" * (5 << 20),
    ],
    ids=["open", "tab", "loop", "list-key", "date", "deep", "laughs", "binary", "large"],
)  # fmt: skip
def test_yaml_that_cannot_be_held_is_refused_in_words_and_the_table_is_read(tmp_path: Path, text: str) -> None:
    with pytest.raises(UnreadableYamlError, match=r"\w"):
        parse_yaml(text.encode())
    save(tmp_path, "step,loss\n1,2.0\n2,1.0\n", "metrics.csv")
    save(tmp_path, text, "hparams.yaml")
    run = load(tmp_path)
    assert run.series("loss").height == 2 and run.rejects.height == 1
    assert run.rejects["file"][0].endswith("hparams.yaml")


def test_keras_tables_have_the_epoch_as_their_axis(tmp_path: Path) -> None:
    # as CSVLogger writes: the names sorted after the epoch, NA where training stopped within an epoch
    text = "epoch,accuracy,loss,val_accuracy,val_loss\r\n0,0.5,2.5,0.4,2.6\r\n1,0.6,2.0,NA,NA\r\n"
    run = load(save(tmp_path / "exp-a", text, "training.csv"))
    assert run.name == "exp-a" and run.last_step is None and run.rejects.is_empty()
    assert run.series("loss", split="eval")["value"].to_list() == [2.6]
    assert run.series("loss", split="")["epoch"].to_list() == [0.0, 1.0]


def test_padded_headers_and_cells_and_the_arguments_beside_them(tmp_path: Path) -> None:
    text = "                  epoch,         train/box_loss,           val/box_loss\n"
    text += "".join(f"{i:23d},{3.5 / i:23.5g},{3.0 / i:23.5g}\n" for i in range(1, 5))
    save(tmp_path / "train7", "task: detect\nlr0: 0.01\n", "args.yaml")
    run = load(save(tmp_path / "train7", text, "results.csv"))
    assert run.config == {"task": "detect", "lr0": 0.01} and run.rejects.is_empty()
    assert run.series("box_loss", split="train")["value"].to_list() == [3.5, 1.75, 1.1667, 0.875]


def test_a_progress_table_counts_in_timesteps(tmp_path: Path) -> None:
    text = "rollout/ep_rew_mean,time/fps,time/iterations,time/total_timesteps,train/loss\n"
    text += "".join(f"{i},800,{i},{2048 * i},{'' if i == 1 else 0.5}\n" for i in range(1, 5))
    run = load(save(tmp_path, text, "progress.csv"))
    assert run.series("rollout/ep_rew_mean")["step"].to_list() == [2048, 4096, 6144, 8192]
    assert run.series("loss", split="train").height == 3 and "time/total_timesteps" not in run.metrics


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"], ids=["comma", "semicolon", "tab", "bar"])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_every_separator_and_line_end_reads_alike(tmp_path: Path, separator: str, end: str) -> None:
    plain = load(save(tmp_path, table(40), "a.csv")).scalars.select(COLUMNS)
    other = load(save(tmp_path, table(40, end=end, separator=separator), "b.csv"))
    assert other.scalars.select(COLUMNS).equals(plain) and other.rejects.is_empty()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1"])
def test_every_encoding_reads_alike(tmp_path: Path, encoding: str) -> None:
    text = "step,Güte\n" + "".join(f"{i},{i}.5\n" for i in range(30))
    mark = b"\xff\xfe" if encoding == "utf-16-le" else b""
    run = load(save(tmp_path, mark + text.encode(encoding)))
    assert rows(run, "step", "tag", "value") == [(i, "Güte", i + 0.5) for i in range(30)]


def test_decimal_commas_are_numbers_where_the_separator_is_none(tmp_path: Path) -> None:
    run = load(save(tmp_path, "step;loss;tokens\n1;2,5;1.024,5\n2;1,25e-3;2.048,0\n"))
    assert rows(run) == [(1, "loss", 2.5), (2, "loss", 1.25e-3), (1, "tokens", 1024.5), (2, "tokens", 2048.0)]


def test_large_tables_with_decimal_commas_read_as_small_ones(tmp_path: Path) -> None:
    text = "step;loss\n" + "".join(f"{i};{str(1 / (i + 1)).replace('.', ',')}\n" for i in range(2000))
    assert load(save(tmp_path, text)).series("loss")["value"].to_list() == [1 / (i + 1) for i in range(2000)]


def test_a_quoted_number_that_may_mean_two_things_stays_text(tmp_path: Path) -> None:
    run = load(save(tmp_path, 'step,loss,n\n1,"0,5","1,234"\n2,"0,25",7\n'))
    assert run.series("loss")["value"].to_list() == [0.5, 0.25]
    assert run.series("n")["value"].to_list() == [7.0] and "'1,234' here" in run.rejects["reason"][0]


def test_columns_that_share_a_name_are_all_kept_and_said(tmp_path: Path) -> None:
    run = load(save(tmp_path, "step,loss,loss,loss\n1,2.0,3.0,4.0\n2,1.0,2.0,3.0\n"))
    assert [run.series(tag)["value"][0] for tag in ("loss", "loss.1", "loss.2")] == [2.0, 3.0, 4.0]
    assert run.rejects["reason"].str.contains("stands more than once").all() and run.rejects.height == 2


def test_names_with_line_ends_quotes_slashes_and_scripts_are_names(tmp_path: Path) -> None:
    names = ["step", "a\nb", 'c"d', "e/f", "<script>alert(1)</script>", "g,h"]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerows([names, *[[i, 1.0, 2.0, 3.0, 4.0, 5.0] for i in range(3)]])
    assert set(load(save(tmp_path, text.getvalue())).scalars["tag"]) == set(names[1:])


def test_long_tables_name_their_metric_in_a_column(tmp_path: Path) -> None:
    text = "step,metric,value\n" + "".join(f"{i},{m},{i}.5\n" for i in range(3) for m in ("loss", "val_loss"))
    run = load(save(tmp_path, text))
    assert run.series("loss", split="")["value"].to_list() == [0.5, 1.5, 2.5]
    assert run.series("loss", split="eval")["step"].to_list() == [0, 1, 2] and run.events.is_empty()


def test_steps_as_floats_and_beyond_a_float(tmp_path: Path) -> None:
    big = 2**53 + 1
    run = load(save(tmp_path, f"step,loss\n1.0,0.5\n2.0,0.25\n{big},0.125\n2.5,1.0\n"))
    assert run.series("loss", live=False)["step"].to_list() == [1, 2, big, None]
    assert "not a whole number" in run.rejects["reason"][0] and run.rejects["line"].to_list() == [5]


def test_time_that_goes_backwards_is_read_as_it_stands(tmp_path: Path) -> None:
    run = load(save(tmp_path, "step,time,loss\n1,1700000100,1.0\n2,1700000000,0.5\n"))
    assert run.series("loss")["time"].dt.epoch("s").to_list() == [1700000100, 1700000000]


def test_a_table_that_was_appended_to_after_a_restart_has_two_attempts(tmp_path: Path) -> None:
    first, second = table(30), table(60).splitlines(keepends=True)
    run = load(save(tmp_path, first + second[0] + "".join(second[11:])))
    assert run.rejects.is_empty() and set(run.scalars["attempt"]) == {0, 1}
    assert run.series("loss", split="")["step"].to_list() == list(range(60))


@pytest.mark.parametrize("head", ["# made by hand\n", "# epoch 3 of 5, was good\n\n", '#{"lr": 0.1}\n'])
def test_comments_before_the_header_are_passed_over_and_json_is_configuration(tmp_path: Path, head: str) -> None:
    run = load(save(tmp_path, head + table(5)))
    assert run.series("loss", split="").height == 5 and run.rejects.is_empty()
    assert run.config == ({"lr": 0.1} if "lr" in head else {})


def test_a_header_may_be_a_comment(tmp_path: Path) -> None:
    path = tmp_path / "numpy.csv"
    np.savetxt(path, [[0, 2.5], [1, 2.0], [2, 1.5]], delimiter=",", header="epoch,loss")
    assert load(path).series("loss")["value"].to_list() == [2.5, 2.0, 1.5]


def test_the_index_that_pandas_writes_is_no_metric(tmp_path: Path) -> None:
    run = load(save(tmp_path, ",step,loss\n0,10,2.0\n1,20,1.0\n"))
    assert run.metrics == ["loss"] and run.last_step == 20


def test_only_a_header_is_a_run_without_rows_and_says_so(tmp_path: Path) -> None:
    run = load(save(tmp_path, "epoch,step,train_loss\n", "metrics.csv"))
    assert run.scalars.is_empty() and "nothing was logged" in run.rejects["reason"][0]


@pytest.mark.parametrize(
    "text",
    ["name,size\na,3\nb,4\n", "1,2,3\n4,5,6\n", "step\n1\n2\n", "To step, press a key.\nThen wait.\n", "a,b\n", "{}\n"],
)
def test_other_tables_and_prose_are_not_taken(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match="not a format that is known"):
        load(save(tmp_path, text))


def test_an_empty_file_is_said_to_be_empty(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the file is empty"):
        load(save(tmp_path, b""))


def test_the_ending_of_the_name_does_not_matter(tmp_path: Path) -> None:
    assert load(save(tmp_path, table(5), "run.dat")).series("loss", split="").height == 5


def test_rows_of_another_width_are_rejects_with_their_line_and_the_others_are_read(tmp_path: Path) -> None:
    lines = table(2000).splitlines(keepends=True)
    lines[700], lines[1500] = "699,1.0\r\n", "1499,1.0,2.0,3.0\r\n"
    run = load(save(tmp_path, "".join(lines)))
    assert run.rejects["line"].to_list() == [701, 1501]
    assert run.rejects["reason"][0].startswith("2 cells where the header has 3")
    assert set(run.series("loss", split="")["step"]) == set(range(2000)) - {699, 1499}


def test_a_cell_that_is_no_number_costs_one_value(tmp_path: Path) -> None:
    lines = table(2000).splitlines(keepends=True)
    lines[700] = "699,0.x5,\r\n"
    run = load(save(tmp_path, "".join(lines)))
    assert run.rejects["line"].to_list() == [701] and "'0.x5' here and numbers elsewhere" in run.rejects["reason"][0]
    assert run.series("loss", split="").height == 1999


def test_a_stray_quote_costs_one_row(tmp_path: Path) -> None:
    lines = table(3000).splitlines(keepends=True)
    lines[1000] = '999,"0.5,\r\n'
    run = load(save(tmp_path, "".join(lines)))
    assert run.series("loss", split="").height >= 2998 and run.rejects.height >= 1


def test_the_last_cell_of_a_line_without_its_end_is_doubtful_and_not_read(tmp_path: Path) -> None:
    run = load(save(tmp_path, "step,loss,acc\n1,2.0,0.5\n2,1.0,0.62"))
    assert rows(run) == [(1, "acc", 0.5), (1, "loss", 2.0), (2, "loss", 1.0)]
    assert run.rejects["line"].to_list() == [3] and "its last cell was not read" in run.rejects["reason"][0]


def test_columns_at_once_and_line_by_line_read_alike(tmp_path: Path) -> None:
    text = table(3000)
    fast = load(save(tmp_path, text, "a.csv")).scalars.select(COLUMNS)
    quoted = text.replace("\r\n7,", '\r\n"7",').replace("\r\n2500,", '\r\n"2500",')
    assert load(save(tmp_path, quoted, "b.csv")).scalars.select(COLUMNS).equals(fast)


def test_every_kind_of_number_is_read_as_python_reads_it(tmp_path: Path) -> None:
    given = ["nan", "NaN", "inf", "-inf", "1e5", "-1.5E-7", "0.1", "5e-324", "1.7976931348623157e308", ".5", "3."]
    run = load(save(tmp_path, "step,x\n" + "".join(f"{i},{t}\n" for i, t in enumerate(given))))
    found = run.series("x")["value"].to_list()
    assert all(a == b or (math.isnan(a) and math.isnan(b)) for a, b in zip(found, map(float, given), strict=True))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.none() | st.floats(width=64), min_size=3, max_size=3), min_size=1, max_size=30
    ),
    st.sampled_from([",", ";", "\t"]),
)  # fmt: skip
def test_what_is_written_is_read_back(values: list[list[float | None]], separator: str) -> None:
    names = ["loss", "val_acc", "x/y"]
    lines = [["step", *names]]
    lines += [[str(i), *("" if v is None else repr(v) for v in row)] for i, row in enumerate(values)]
    run = read_text("".join(separator.join(line) + "\n" for line in lines))
    expected = {(i, n): v for i, row in enumerate(values) for n, v in zip(names, row, strict=True) if v is not None}
    found = {(s, t): v for s, t, v in rows(run)}
    assert found.keys() == expected.keys()
    assert all(found[k] == v or (math.isnan(found[k]) and math.isnan(v)) for k, v in expected.items())


def read_text(text: str | bytes) -> Run:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        run = load(save(Path(folder), text, "metrics.csv"))
        assert run.scalars.height >= 0  # collected while the file stands
        return run


@settings(max_examples=80, deadline=None)
@given(st.integers(30, len(table(12)) - 1))
def test_a_table_cut_anywhere_gives_only_true_numbers_and_says_what_is_lost(size: int) -> None:
    whole = {(s, t): v for s, t, v in rows(read_text(table(12)))}
    cut = table(12)[:size]
    run = read_text(cut)
    assert all(whole[s, t] == v for s, t, v in rows(run))
    ended = cut.endswith("\n")
    assert ended or run.rejects.height == 1
    lines = cut.count("\n") - 1
    assert run.scalars.filter(pl.col("tag") == "loss").height >= lines


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_one_flipped_byte_costs_at_most_two_rows(data: st.DataObject) -> None:
    raw = bytearray(table(40).encode())
    place = data.draw(st.integers(raw.index(b"\n") + 1, len(raw) - 3))
    raw[place] ^= data.draw(st.integers(1, 255))
    run = read_text(bytes(raw))
    whole = set(rows(read_text(table(40))))
    assert len(whole - set(rows(run))) <= 4, run.rejects


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_under_a_header_raise_nothing(tail: bytes) -> None:
    run = read_text(b"step,loss\n1,2.0\n2,1.5\n3,1.25\n4,1.0\n5,0.5\n" + tail + b"\n6,0.25\n")
    assert {(1, "loss", 2.0), (5, "loss", 0.5)} <= set(rows(run))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_table_or_none(head: bytes) -> None:
    found = find_dialect(head)
    assert found is None or len(found.names) >= 2


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    save(tmp_path / "a", table(5), "metrics.csv")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert len(load_all(tmp_path)) == 1


@pytest.mark.parametrize(("path", "facts"), [*wild("lightning_csv", ".csv"), *wild("ultralytics_csv", ".csv")])
def test_tables_of_other_people_hold_what_was_counted(path: Path, facts: dict[str, Any]) -> None:
    run = load(path)
    assert run.rejects.is_empty() and run.config
    known = {tag: f for tag, f in facts.items() if tag not in ("epoch", "step")}
    assert [d for tag, f in known.items() if (d := disagreement(run, tag, f))] == []
    assert set(run.scalars["tag"]) == set(known)


def test_missing_values_and_words_read_alike_at_once_and_line_by_line(tmp_path: Path) -> None:
    cells = [("NA" if i % 3 else i / 7, " warm" if i < 900 else " None", "--" if i % 5 else i) for i in range(1800)]
    lines = [f"{i},{a},{b},{c}\n" for i, (a, b, c) in enumerate(cells)]
    text = "step,loss,state,x\n" + "".join(lines)
    fast, slow = load(save(tmp_path, text, "a.csv")), load(save(tmp_path, text.replace("\n7,", '\n"7",'), "b.csv"))
    assert fast.rejects.is_empty() and fast.series("loss").height == 600
    assert fast.scalars.select(COLUMNS).equals(slow.scalars.select(COLUMNS))
    assert fast.events.drop("run").equals(slow.events.drop("run")) and set(fast.events["payload"]) == {
        '{"state":"warm"}'
    }
