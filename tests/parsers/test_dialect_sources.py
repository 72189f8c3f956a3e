"""Dialects against the format strings of the programs that print them: every number comes back as it was printed.

Each writer below formats as the code does that its docstring names; `Rows` are what a reader has to find.
"""

from __future__ import annotations

import datetime as dt
import io
import json
import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tqdm import tqdm

from parsers.loading import load
from parsers.run import Run

#: tag, split, step, epoch, value as printed
Rows = list[tuple[str, str, int | None, float | None, float]]
START = dt.datetime(2024, 3, 1, 12, 0, 0)


def logged(form: str, lines: list[str], dated: str | None = None, name: str = "train") -> str:
    """The lines as Python's logging writes them, one a second; a line that begins with `name>>` has its own logger."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(logging.Formatter(form, dated))
    for second, line in enumerate(lines):
        own, _, text = line.rpartition(">>")
        record = logging.LogRecord(own or name, logging.INFO, "trainer.py", 732, text, None, None)
        record.created, record.msecs = (START + dt.timedelta(seconds=second)).timestamp(), 123.0
        handler.handle(record)
    return out.getvalue()


def nanogpt(numbers: random.Random) -> tuple[str, Rows]:
    """karpathy/nanoGPT, train.py and model.py."""
    lines, rows = ["number of parameters: 10.65M"], Rows()
    for step in range(0, 300, 10):
        loss, mfu = f"{numbers.uniform(0, 9):.4f}", f"{-100.0 if step < 50 else numbers.uniform(1, 60):.2f}"
        if step % 100 == 0:
            lines.append(f"step {step}: train loss {loss}, val loss {mfu.removeprefix('-')}")
            rows += [
                ("train loss", "train", step, None, float(loss)),
                ("val loss", "eval", step, None, abs(float(mfu))),
            ]
        lines.append(f"iter {step}: loss {loss}, time {numbers.uniform(9, 3e4):.2f}ms, mfu {mfu}%")
        rows += [("loss", "", step, None, float(loss)), ("mfu", "", step, None, float(mfu))]
    return "\n".join(lines) + "\n", rows


def fairseq(numbers: random.Random) -> tuple[str, Rows]:
    """facebookresearch/fairseq, fairseq/logging/progress_bar.py (SimpleProgressBar) and fairseq_cli/train.py."""
    lines, rows = list[str](), Rows()
    for epoch in (1, 2):
        for i in (199, 399):
            update = f"{(epoch - 1) * 400 + i + 1:g}"
            loss, lr = f"{numbers.uniform(0, 12):.3f}", f"{numbers.uniform(0, 1e-3):g}"
            stats = f"loss={loss}, ppl={numbers.uniform(2, 900):.2f}, num_updates={update}, lr={lr}"
            lines.append(f"epoch {epoch:03d}:  {i + 1:5d} / {400:d} {stats}")
            rows += [("loss", "train", int(update), epoch, float(loss)), ("lr", "train", int(update), epoch, float(lr))]
        best = f"{numbers.uniform(0, 12):.3f}"
        lines.append(f"valid>>epoch {epoch:03d} | valid on 'valid' subset | loss {best} | num_updates {epoch * 400:g}")
        speed = f"{numbers.uniform(1e3, 1e5):g}"
        lines.append(f"train>>epoch {epoch:03d} | loss {best} | wps {speed} | num_updates {epoch * 400:g}")
        rows += [("loss", split, epoch * 400, epoch, float(best)) for split in ("eval", "train")]
    form = "%(asctime)s | %(levelname)s | %(name)s | %(message)s"
    return logged(form, lines, "%Y-%m-%d %H:%M:%S", "train_inner"), rows


def fairseq_json(numbers: random.Random) -> tuple[str, Rows]:
    """The same file, JsonProgressBar: texts of numbers, and from a million on as `1e+06`."""
    lines, rows = list[str](), Rows()
    for update in (999_000, 1_000_000, 1_250_000):
        loss = f"{numbers.uniform(0, 12):.3f}"
        stats = {"epoch": 3, "update": 2.5, "loss": loss, "num_updates": f"{update:g}", "lr": "0.0005"}
        lines.append(json.dumps(stats))
        rows.append(("loss", "train", update, 3.0, float(loss)))
    form = "%(asctime)s | %(levelname)s | %(name)s | %(message)s"
    return logged(form, lines, "%Y-%m-%d %H:%M:%S", "train_inner"), rows


def vits(numbers: random.Random) -> tuple[str, Rows]:
    """jaywalnut310/vits, train.py and utils.py: a list of floats, the step and the rate, as Python prints a list."""
    lines, rows = list[str](), Rows()
    for step in range(0, 600, 200):
        losses = [numbers.uniform(0, 60) for _ in range(5)] + [1e-05 if step else 2.5]
        lines += [f"Train Epoch: {step // 200 + 1} [{100.0 * 17 / 42:.0f}%]", str([*losses, step, 0.0002])]
        names = ("loss_disc", "loss_gen", "loss_fm", "loss_mel", "loss_dur", "loss_kl")
        rows += [(name, "", step, step // 200 + 1, value) for name, value in zip(names, losses, strict=True)]
        lines.append(f"====> Epoch: {step // 200 + 1}")
    return logged("%(asctime)s\t%(name)s\t%(levelname)s\t%(message)s", lines, name="ljs_base"), rows


def so_vits(numbers: random.Random) -> tuple[str, Rows]:
    """svc-develop-team/so-vits-svc, train.py."""
    lines, rows = list[str](), Rows()
    for step in range(0, 600, 200):
        losses = [numbers.uniform(0, 60) for _ in range(5)]
        lines.append(f"Train Epoch: 7 [{40:.0f}%]")
        lines.append(f"Losses: {losses}, step: {step}, lr: {9.99e-05}, reference_loss: {sum(losses)}")
        rows += [("loss_mel", "", step, 7.0, losses[3]), ("lr", "", step, 7.0, 9.99e-05)]
    return logged("%(asctime)s\t%(name)s\t%(levelname)s\t%(message)s", lines, name="44k"), rows


def hifigan(numbers: random.Random) -> tuple[str, Rows]:
    """jik876/hifi-gan, train.py."""
    lines, rows = ["checkpoints directory :  cp_hifigan"], Rows()
    for step in range(0, 30, 5):
        if step % 15 == 0:
            lines.append(f"Epoch: {step // 15 + 1}")
        loss, mel, took = (f"{numbers.uniform(0, 99):4.3f}" for _ in range(3))
        lines.append(f"Steps : {step:d}, Gen Loss Total : {loss}, Mel-Spec. Error : {mel}, s/b : {took}")
        rows += [("Gen Loss Total", "", step, step // 15 + 1, float(loss))]
        rows += [
            ("Mel-Spec. Error", "", step, step // 15 + 1, float(mel)),
            ("s/b", "", step, step // 15 + 1, float(took)),
        ]
    return "\n".join(lines) + "\n", rows


def speechbrain(numbers: random.Random) -> tuple[str, Rows]:
    """speechbrain/speechbrain, speechbrain/utils/train_logger.py (FileTrainLogger)."""

    def item(value: float) -> str:
        return f"{value:.2f}" if 1.0 < value < 100.0 else f"{value:.2e}"

    lines, rows = list[str](), Rows()
    for epoch in range(1, 4):
        lr, loss, valid, error = (item(numbers.choice([0.001, 0.5, 7.5, 250.0]) * numbers.random()) for _ in range(4))
        lines.append(
            f"epoch: {epoch}, lr: {lr}, steps: {epoch * 500}, optimizer: AdamW - train loss: {loss} - "
            f"valid loss: {valid}, valid PER: {error}"
        )
        rows += [("train loss", "train", 500 * epoch, epoch, float(loss)), ("lr", "", 500 * epoch, epoch, float(lr))]
        rows += [("valid PER", "eval", 500 * epoch, epoch, float(error))]
    lines.append("Epoch loaded: 3 - test si-snr: 12.50, test PER: 8.41e-01")
    return "\n".join(lines) + "\n", [*rows, ("test PER", "test", None, 3.0, 0.841)]


def speechbrain_log(numbers: random.Random) -> tuple[str, Rows]:
    """The same through speechbrain/log-config.yaml, as `log.txt` has it."""
    text, rows = speechbrain(numbers)
    form = "%(asctime)s - %(name)s - %(levelname)s - %(message)s"
    return logged(form, text.splitlines(), name="speechbrain.utils.train_logger"), rows


def espnet(numbers: random.Random) -> tuple[str, Rows]:
    """espnet/espnet, espnet2/train/reporter.py; times in words are humanfriendly's."""

    def shown(value: float) -> str:
        return f"{value:.3f}" if 1.0e-3 < abs(value) <= 1.0e3 else f"{value:.3e}"

    lines, rows = list[str](), Rows()
    for epoch in (1, 2):
        for batch in (50, 100):
            loss, lr = shown(numbers.choice([1.0, 5e3]) * numbers.random()), shown(1e-5 * epoch)
            lines.append(
                f"{epoch}epoch:train:{batch - 49}-{batch}batch: iter_time={shown(0.164)}, loss={loss}, optim0_lr0={lr}"
            )
            step = (epoch - 1) * 100 + batch  # counted within the epoch, told over all epochs
            rows += [("loss", "train", step, epoch, float(loss)), ("optim0_lr0", "train", step, epoch, float(lr))]
        train, valid = shown(numbers.random()), shown(numbers.random() * 1e-3)
        lines.append(
            f"{epoch}epoch results: [train] iter_time={shown(0.2)}, loss_ctc={train}, time=6 hours, 22 minutes and "
            f"55.09 seconds, total_count={epoch * 100}, gpu_max_cached_mem_GB=33.186, [valid] loss_ctc={valid}, "
            f"acc=0.750, time=1 minute and 43.19 seconds, total_count={epoch * 10}, gpu_max_cached_mem_GB=33.186, "
            "[att_plot] time=12.4 seconds, total_count=0"
        )
        rows += [("loss_ctc", "train", None, epoch, float(train)), ("loss_ctc", "eval", None, epoch, float(valid))]
        rows += [("acc", "eval", None, epoch, 0.75)]
    return logged("[node7] %(asctime)s (%(module)s:%(lineno)d) %(levelname)s: %(message)s", lines), rows


def kaldi_nnet1(numbers: random.Random) -> tuple[str, Rows]:
    """kaldi-asr/kaldi, egs/wsj/s5/steps/nnet/train_scheduler.sh."""
    lines, rows = ["CROSSVAL PRERUN AVG.LOSS 8.4100 (Xent),"], Rows()
    for step in range(1, 5):
        loss, rate, valid = f"{numbers.uniform(0, 9):.4f}", f"{0.008 / 2**step:.6g}", f"{numbers.uniform(0, 9):.4f}"
        lines.append(
            f"ITERATION {step:02d}: TRAIN AVG.LOSS {loss}, (lrate{rate}), CROSSVAL AVG.LOSS {valid}, nnet accepted "
            f"(nnet_iter{step:02d}_learnrate{rate}_tr{loss}_cv{valid})"
        )
        rows += [("TRAIN AVG.LOSS", "train", step, None, float(loss)), ("lrate", "", step, None, float(rate))]
        rows += [("CROSSVAL AVG.LOSS", "eval", step, None, float(valid))]
    return "\n".join(lines) + "\n", rows


def kaldi_nnet3(numbers: random.Random) -> tuple[str, Rows]:
    """kaldi-asr/kaldi, egs/wsj/s5/steps/nnet3/train_dnn.py, src/nnet3/nnet-training.cc, nnet-chain-diagnostics.cc."""
    lines, rows = list[str](), Rows()
    where = "LOG (nnet3-chain-train[5.5.103~1-34cc4e]:PrintTotalStats():nnet-training.cc:348) "
    for step in range(4):
        rate = f"{numbers.uniform(0, 1e-2):0.6f}"
        lines.append(
            f"2024-03-01 12:00:0{step},123 [steps/nnet3/train_dnn.py:357 - train - INFO ] Iter: {step}/{99}   "
            f"Jobs: 2   Epoch: {step / 8:0.2f}/{4:0.1f} ({3.1:0.1f}% complete)   lr: {rate}   "
        )
        value, term = f"{-numbers.random():g}", f"{-numbers.random() / 9:g}"
        lines.append(f"{where}Overall average objective function for 'output' is {value} over 505600 frames.")
        total = f"{float(value) + float(term):g}"
        sum_ = f"{value} + {term} = {total} per frame, over 20000 frames."
        lines.append(f"{where}Overall log-probability for 'output-xent' is {sum_}")
        epoch = float(f"{step / 8:0.2f}")
        rows += [("lr", "", step, epoch, float(rate)), ("output", "", step, epoch, float(value))]
        rows += [("output-xent", "", step, epoch, float(total))]
    return "\n".join(lines) + "\n", rows


def _keras_metrics(numbers: random.Random, epoch: int) -> tuple[str, Rows]:
    text, rows = "", Rows()
    for tag, split in (("accuracy", ""), ("loss", ""), ("val_loss", "eval")):
        value = numbers.choice([1.0, 1e-3]) * numbers.random()
        shown = f"{value:.4f}" if value > 1e-3 else f"{value:.4e}"
        text += f" - {tag}: {shown}"
        rows.append((tag, split, None, epoch, float(shown)))
    return text, rows


def keras3(numbers: random.Random) -> tuple[str, Rows]:
    """keras-team/keras 3, keras/src/utils/progbar.py: a bar drawn over itself with backspaces and colours."""
    out, rows = "", Rows()
    for epoch in range(1, 4):
        out += f"Epoch {epoch}/3\n"
        for batch, took in ((1, "1:32"), (211, "12s"), (422, "0s")):
            bar = f"\x1b[1m{batch:3d}/422\x1b[0m \x1b[32m{'━' * (20 * batch // 422)}\x1b[0m"
            bar += f"\x1b[37m{'━' * (20 - 20 * batch // 422)}\x1b[0m"
            out += "\b" * 60 + "\r" + f"{bar} \x1b[1m{took}\x1b[0m 108ms/step - accuracy: 0.0001 - loss: 99.0000"
        text, mine = _keras_metrics(numbers, epoch)
        out += (
            "\b" * 60
            + f"\r\x1b[1m422/422\x1b[0m \x1b[32m{'━' * 20}\x1b[0m\x1b[37m\x1b[0m \x1b[1m47s\x1b[0m 108ms/step{text}\n"
        )
        rows += mine
    return out, rows


def keras3_lines(numbers: random.Random) -> tuple[str, Rows]:
    """The same with `verbose=2`."""
    out, rows = "", Rows()
    for epoch in range(1, 4):
        text, mine = _keras_metrics(numbers, epoch)
        out += f"Epoch {epoch}/3\n422/422 - 47s - 108ms/step{text}\n"
        rows += mine
    return out, rows


def keras2(numbers: random.Random) -> tuple[str, Rows]:
    """keras-team/keras 2, keras/utils/generic_utils.py."""
    out, rows = "", Rows()
    for epoch in range(1, 4):
        text, mine = _keras_metrics(numbers, epoch)
        out += f"Epoch {epoch}/3\n\r 32/1875 [{'.' * 30}] - ETA: 1:02 - loss: 99.0000"
        out += "\b" * 50 + f"\r1875/1875 [{'=' * 30}] - 3s 2ms/step{text}\n"
        rows += mine
    return out, rows


def keras2_lines(numbers: random.Random) -> tuple[str, Rows]:
    """The same with `verbose=2`: no count and no time of a step."""
    out, rows = "", Rows()
    for epoch in range(1, 4):
        text, mine = _keras_metrics(numbers, epoch)
        out += f"Epoch {epoch}/3\n - 3s{text}\n"
        rows += mine
    return out, rows


def tqdm_bars(numbers: random.Random) -> tuple[str, Rows]:
    """tqdm itself, every refresh of a bar with a postfix; the clock of the bar stands still."""
    out, rows = io.StringIO(), Rows()
    for epoch in (1, 2):
        with tqdm(total=40, desc=f"Epoch {epoch}", file=out, mininterval=1e9, ncols=140) as bar:
            for step in range(10, 41, 10):
                loss, rate = numbers.uniform(0, 9), numbers.uniform(0, 1e-3)
                bar.n = step
                bar.set_postfix(loss=loss, lr=rate)
                place = (epoch - 1) * 40 + step  # counted within the epoch, told over all epochs
                rows.append(("loss", "", place, epoch, float(f"{loss:.3g}")))
                rows.append(("lr", "", place, epoch, float(f"{rate:.3g}")))
    return out.getvalue(), rows


def tqdm_scaled(numbers: random.Random) -> tuple[str, Rows]:
    """The same with `unit_scale`: counts of three digits and a letter."""
    out, rows = io.StringIO(), Rows()
    with tqdm(total=5_000_000, unit_scale=True, unit="tok", file=out, mininterval=1e9, ncols=140) as bar:
        for step in (500, 1_200, 20_500, 999_000, 1_250_000, 5_000_000):
            bar.n, loss = step, numbers.uniform(0, 9)
            bar.set_postfix(loss=loss)
            rows.append(("loss", "", step, None, float(f"{loss:.3g}")))
    return out.getvalue(), rows


def aasist(numbers: random.Random) -> tuple[str, Rows]:
    """clovaai/aasist, main.py, and the baseline of ASVspoof 5."""
    lines, rows = list[str](), Rows()
    for epoch in range(3):
        loss, eer, dcf = f"{numbers.random():.5f}", f"{numbers.uniform(0, 40):.3f}", f"{numbers.random():.5f}"
        lines += [f"Start training epoch{epoch:03d}", "DONE."]
        other = f"dev_tdcf:{dcf}" if epoch % 2 else f"dev_dcf:{dcf} , dev_cllr:{dcf}"
        lines.append(f"Loss:{loss}, dev_eer: {eer}, {other}")
        rows += [("Loss", "train", None, epoch, float(loss)), ("dev_eer", "eval", None, epoch, float(eer))]
        rows += [("dev_tdcf" if epoch % 2 else "dev_cllr", "eval", None, epoch, float(dcf))]
    return "\n".join(lines) + "\n", rows


WRITERS: list[tuple[str, Callable[[random.Random], tuple[str, Rows]]]] = [
    ("nanogpt", nanogpt), ("fairseq", fairseq), ("fairseq", fairseq_json), ("vits", vits), ("vits", so_vits),
    ("hifi-gan", hifigan), ("speechbrain", speechbrain), ("speechbrain", speechbrain_log), ("espnet", espnet),
    ("kaldi", kaldi_nnet1), ("kaldi", kaldi_nnet3), ("keras", keras3), ("keras", keras3_lines), ("keras", keras2),
    ("keras", keras2_lines), ("tqdm", tqdm_bars), ("tqdm", tqdm_scaled), ("aasist", aasist),
]  # fmt: skip


def read(folder: Path, text: str) -> Run:
    (folder / "job-7.log").write_bytes(text.encode())
    return load(folder / "job-7.log")


@pytest.mark.parametrize(("dialect", "writer"), WRITERS, ids=[writer.__name__ for _, writer in WRITERS])
def test_every_number_that_the_program_prints_is_read_in_its_dialect(
    dialect: str, writer: Callable[[random.Random], tuple[str, Rows]], tmp_path: Path
) -> None:
    text, expected = writer(random.Random(7))
    run = read(tmp_path, f"loading 3 of 4 shards\n{text}saving\n")
    note = json.loads(run.events_of("note")["payload"][0])
    assert note["dialect"] == dialect and note["used"] <= note["lines"]
    found: list[tuple[Any, ...]] = run.scalars.select("tag", "split", "step", "epoch", "value").rows()
    assert [row for row in expected if row not in found] == []
    assert run.rejects.is_empty() and set(run.scalars["attempt"]) == {0}
    tags = {(row[0], row[1]) for row in expected}
    counted = [row for row in found if (row[0], row[1]) in tags]
    assert len(counted) == len(expected)  # nothing is invented of the lines between, and nothing is read twice


def test_words_for_a_time_are_no_number(tmp_path: Path) -> None:
    assert "time" not in read(tmp_path, espnet(random.Random(1))[0]).metrics
