"""Each dialect of text logs reads lines as its program prints them; a user's own dialect too."""

from __future__ import annotations

from pathlib import Path

import pytest

from eventstream.errors import InputError
from parsers.loading import load
from parsers.registry import detect
from parsers.run import Run
from parsers.text import read
from parsers.text_logs.dialects import DIALECTS, from_toml

#: Dialect -> lines, and rows (tag, split, metric, step, epoch, value) that must be in the run.
CASES: dict[str, tuple[str, list[tuple[str, str, str, int | None, float | None, float]]]] = {
    "megatron": (
        " [2023-08-02 15:05:31] iteration       10/     100 | consumed samples:           40 | elapsed time per "
        "iteration (ms): 2152.2 | learning rate: 1.500E-04 | lm loss: 1.203115E+01 | loss scale: 1.0 |\n"
        " validation loss at iteration 10 | lm loss value: 8.017406E+00 | lm loss PPL: 3.033300E+03 | \n",
        [("lm loss", "", "lm_loss", 10, None, 12.03115), ("lm loss value", "eval", "lm_loss", 10, None, 8.017406)],
    ),
    "llm.c": (
        "val loss 11.008742\nstep    1/19560 | loss 11.010252 (+nanz)| norm 15.1374 (+nanz)| lr 8.57e-07 | "
        "4621.47 ms | 29.2% bf16 MFU | 113446 tok/s\nval loss 6.208999\n",
        [("val loss", "eval", "loss", 0, None, 11.008742), ("norm", "", "grad_norm", 1, None, 15.1374),
         ("val loss", "eval", "loss", 1, None, 6.208999)],
    ),
    "nanogpt": (
        "number of parameters: 10.65M\nstep 0: train loss 4.2874, val loss 4.2823\n"
        "iter 0: loss 4.2586, time 31522.10ms, mfu -100.00%\niter 10: loss 3.1, time 31.5ms\n",
        [("train loss", "train", "loss", 0, None, 4.2874), ("val loss", "eval", "loss", 0, None, 4.2823),
         ("loss", "", "loss", 10, None, 3.1), ("time", "", "step_time_ms", 10, None, 31.5)],
    ),
    "modded-nanogpt": (
        "step:0/5100 val_loss:16.0012 train_time:387ms step_avg:nanms\n"
        "step:1/5100 train_loss:15.9932 train_time:77ms step_avg:nanms\nstep:11/5100 train_loss:9.1 train_time:90ms "
        "step_avg:120.0ms\n",
        [("val_loss", "eval", "loss", 0, None, 16.0012), ("train_loss", "train", "loss", 11, None, 9.1)],
    ),
    "nanochat": (
        "Step 00000 | Validation bpb: 3.3084\nstep 00001/21400 (0.00%) | loss: 5.471677 | lrm: 1.00 | dt: 1142.98ms | "
        "tok/sec: 25,697 | mfu: 0.00 | epoch: 1 | total time: 0.00m\n",
        [("val bpb", "eval", "bpb", 0, None, 3.3084), ("tok/sec", "", "tokens_per_second", 1, 1.0, 25697.0)],
    ),
    "olmo": (
        "2025-12-26 22:22:20.622\thost:0\tolmo.train:990\tINFO\t[step=10/1000,epoch=0]\n"
        "    optim/total_grad_norm=6.938\n    train/CrossEntropyLoss=9.133\n    throughput/total_tokens=20,971,520\n",
        [("train/CrossEntropyLoss", "train", "loss", 10, 0.0, 9.133),
         ("throughput/total_tokens", "", "throughput/total_tokens", 10, 0.0, 20971520.0)],
    ),
    "fairseq": (
        "2020-05-01 12:00:00 | INFO | train_inner | epoch 001:    100 / 1000 loss=9.5, nll_loss=8.9, ppl=478.1, "
        "wps=30000, num_updates=100, lr=1e-05, gnorm=2.5\n"
        "2020-05-01 12:01:00 | INFO | valid | epoch 001 | valid on 'valid' subset | loss 8.3 | ppl 315.2 | "
        "num_updates 1000 | best_loss 8.3\n"
        "2020-05-01 12:01:02 | INFO | train | epoch 001 | loss 8.9 | nll_loss 8.1 | num_updates 1000 | lr 1e-04\n",
        [("loss", "train", "loss", 100, 1.0, 9.5), ("gnorm", "train", "gnorm", 100, 1.0, 2.5),
         ("loss", "eval", "loss", 1000, 1.0, 8.3), ("lr", "train", "lr", 1000, 1.0, 1e-4)],
    ),
    "marian": (
        "[2019-02-07 11:35:48] Ep. 1 : Up. 1000 : Sen. 1,008 : Cost 8.25 * 1,234,567 @ 1,024 after 12,345 : "
        "Time 143.55s : 196.61 words/s : gNorm 0.53 : L.r. 1.8750e-08\n"
        "[2019-02-07 12:35:48] [valid] Ep. 1 : Up. 1000 : ce-mean-words : 5.50886 : new best\n",
        [("Cost", "train", "Cost", 1000, 1.0, 8.25), ("L.r.", "train", "lr", 1000, 1.0, 1.875e-8),
         ("ce-mean-words", "eval", "ce-mean-words", 1000, 1.0, 5.50886)],
    ),
    "coqui": (
        "\x1b[4m\x1b[1m > EPOCH: 0/10\x1b[0m\n\x1b[1m > EVALUATION \x1b[0m\n\n  \x1b[1m--> EVAL PERFORMANCE\x1b[0m\n"
        "     | > avg_loss: 4.8813 \x1b[0m(+0)\n\x1b[4m\x1b[1m > EPOCH: 1/10\x1b[0m\n"
        "\x1b[1m > TRAINING (2026-02-11 01:08:02) \x1b[0m\n"
        "\x1b[1m   --> TIME: 2026-02-11 01:08:34 -- STEP: 50/249 -- GLOBAL_STEP: 50\x1b[0m\n"
        "     | > loss: 0.0626  (0.0711)\n     | > current_lr: 5e-06 \n",
        [("avg_loss", "eval", "loss", 0, 0.0, 4.8813), ("loss", "train", "loss", 50, 1.0, 0.0626),
         ("current_lr", "train", "lr", 50, 1.0, 5e-6)],
    ),
    "vits": (
        "2021-06-01 12:00:00,123\tljs_base\tINFO\tTrain Epoch: 3 [12%]\n"
        "2021-06-01 12:00:01,123\tljs_base\tINFO\t[2.5, 2.1, 4.2, 21.5, 1.3, 1.7, 200, 0.0002]\n",
        [("loss_mel", "", "loss_mel", 200, 3.0, 21.5), ("lr", "", "lr", 200, 3.0, 2e-4)],
    ),
    "hifi-gan": (
        "Epoch: 1\nSteps : 5, Gen Loss Total : 35.125, Mel-Spec. Error : 0.640, s/b : 0.225\n",
        [("Gen Loss Total", "", "g_loss", 5, 1.0, 35.125), ("s/b", "", "step_time_s", 5, 1.0, 0.225)],
    ),
    "speechbrain": (
        "epoch: 1, lr: 1.00e+00 - train loss: 5.77 - valid loss: 4.13, valid PER: 83.4\n"
        "Epoch loaded: 1 - test loss: 4.20, test PER: 84.1\n",
        [("train loss", "train", "loss", None, 1.0, 5.77), ("valid PER", "eval", "PER", None, 1.0, 83.4),
         ("test loss", "test", "loss", None, 1.0, 4.2), ("lr", "", "lr", None, 1.0, 1.0)],
    ),
    "espnet": (
        "[node7] 2021-01-01 12:00:00,123 (trainer:732) INFO: 1epoch:train:101-200batch: iter_time=0.1, loss_ctc=70.1, "
        "acc=0.52, loss=123.4, optim0_lr0=2e-06\n"
        "[node7] 2021-01-01 12:30:00,123 (trainer:338) INFO: 1epoch results: [train] loss=99.1, time=10 minutes and "
        "2.3 seconds, total_count=900, [valid] loss=88.5, acc=0.61, time=5.2 seconds\n",
        [("loss", "train", "loss", 200, 1.0, 123.4), ("optim0_lr0", "train", "lr", 200, 1.0, 2e-6),
         ("acc", "eval", "acc", None, 1.0, 0.61)],
    ),
    "kaldi": (
        "ITERATION 01: TRAIN AVG.LOSS 2.0562, (lrate0.008), CROSSVAL AVG.LOSS 1.9023, nnet accepted (x)\n",
        [("TRAIN AVG.LOSS", "train", "loss", 1, None, 2.0562), ("CROSSVAL AVG.LOSS", "eval", "loss", 1, None, 1.9023)],
    ),
    "pix2pix": (
        "================ Training Loss (Thu Sep 25 11:36:10 2025) ================\n"
        "(epoch: 1, iters: 100, time: 0.112, data: 0.257) G_GAN: 1.206 G_L1: 30.5 D_real: 0.477 D_fake: 0.605 \n",
        [("G_L1", "", "G_L1", 100, 1.0, 30.5), ("D_fake", "", "D_fake", 100, 1.0, 0.605)],
    ),
    "speaker": (
        "1 epoch, LR 0.001000, LOSS 9.661726, ACC 3.00%, EER 6.09%, bestEER 6.09%\n",
        [("LOSS", "", "loss", None, 1.0, 9.661726), ("EER", "eval", "eer", None, 1.0, 6.09)],
    ),
    "aasist": (
        "Start training epoch004\nDONE.\nLoss:0.18894, dev_eer: 4.706\n",
        [("Loss", "train", "loss", None, 4.0, 0.18894), ("dev_eer", "eval", "eer", None, 4.0, 4.706)],
    ),
    "keras": (
        "Epoch 2/10\n1875/1875 [==============================] - 3s 2ms/step - loss: 0.3012 - accuracy: 0.9123 - "
        "val_loss: 0.2844\n",
        [("loss", "", "loss", None, 2.0, 0.3012), ("val_loss", "eval", "loss", None, 2.0, 0.2844)],
    ),
    "tqdm": (
        "Epoch 1:   0%|          | 0/100 [00:00<?, ?it/s]\rEpoch 1:  50%|#####     | 50/100 [00:12<00:12,  4.10it/s, "
        "loss=0.31, lr=1e-05]\rEpoch 1: 100%|##########| 100/100 [00:24<00:00,  4.1it/s, loss=0.25, lr=9e-06]\n",
        [("loss", "", "loss", 50, 1.0, 0.31), ("lr", "", "lr", 100, 1.0, 9e-6)],
    ),
}  # fmt: skip


def rows_of(run: Run) -> list[tuple[object, ...]]:
    return run.scalars.select("tag", "split", "metric", "step", "epoch", "value").rows()


def written(folder: Path, text: str, name: str = "job-7.log") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def test_every_dialect_of_the_table_has_a_case_here() -> None:
    assert {d.name for d in DIALECTS} == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_a_dialect_reads_its_lines_between_any_prose(name: str, tmp_path: Path) -> None:
    text, expected = CASES[name]
    path = written(tmp_path, f"loading the data: 3 of 4 shards\n{text}saving to out/model_3.pt\n")
    run = load(path)
    assert run.format == "text"
    assert f'"dialect":"{name}"' in run.events_of("note")["payload"][0]
    rows = rows_of(run)
    assert [row for row in expected if row not in rows] == []
    assert run.rejects.is_empty()


@pytest.mark.parametrize("name", CASES)
def test_carriage_returns_at_line_ends_and_a_byte_order_mark_change_nothing(name: str, tmp_path: Path) -> None:
    text, _ = CASES[name]
    plain = load(written(tmp_path, text)).scalars.drop("run")
    windows = written(tmp_path, "\ufeff" + text.replace("\n", "\r\n"), "windows.log")
    assert load(windows).scalars.drop("run").equals(plain)
    wide = tmp_path / "wide.log"
    wide.write_bytes(text.encode("utf-16"))
    assert load(wide).scalars.drop("run").equals(plain)


@pytest.mark.parametrize(
    ("name", "planned"),
    [("megatron", 100), ("llm.c", 19560), ("modded-nanogpt", 5100), ("nanochat", 21400), ("olmo", 1000)],
)
def test_lines_that_count_towards_a_number_of_steps_tell_the_planned_length(
    name: str, planned: int, tmp_path: Path
) -> None:
    plan = load(written(tmp_path, CASES[name][0])).planned
    assert (plan.max_steps, plan.sources["max_steps"]) == (planned, "the lines of the log: max_steps")


def test_the_number_of_batches_in_an_epoch_is_no_planned_length(tmp_path: Path) -> None:
    assert load(written(tmp_path, CASES["fairseq"][0])).planned.max_steps is None


def test_a_configuration_beside_a_log_leaves_what_its_lines_say(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"max_steps": -1, "lr": 1e-3}')
    plan = load(written(tmp_path, CASES["llm.c"][0])).planned
    assert (plan.max_steps, plan.lr["peak"]) == (19560, 1e-3)


def test_fairseq_json_lines_give_updates_and_epochs(tmp_path: Path) -> None:
    line = '{"epoch": 1, "update": 0.1, "loss": "9.5", "ppl": "724.1", "num_updates": "100", "lr": "1e-05"}'
    valid = '{"epoch": 1, "valid_loss": "8.3", "valid_num_updates": "1000"}'
    text = f"2020-05-01 12:00:00 | INFO | train_inner | {line}\n2020-05-01 12:09:00 | INFO | valid | {valid}\n"
    rows = rows_of(load(written(tmp_path, text)))
    assert ("loss", "train", "loss", 100, 1.0, 9.5) in rows
    assert ("valid_loss", "eval", "loss", 1000, 1.0, 8.3) in rows


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Epoch [{0}/9], Step [{1}/600], Loss: 0.25", ("Loss", None, 0.25)),
        ("Train Epoch: {0} [{1}/60000 (1%)]\tLoss: 0.25", ("Loss", None, 0.25)),
        ("INFO:root:step={1} loss=0.25 acc=0.5 eta=0:01:02", ("loss", None, 0.25)),
        ("2024-01-02 03:04:05,678 - trainer - global_step {1} | train loss = 0.25", ("train loss", None, 0.25)),
        ("{{'loss': 0.25, 'step': {1}, 'epoch': {0}.25}}", ("loss", None, 0.25)),
    ],
)
def test_an_unknown_log_is_read_by_its_names_and_numbers_and_says_so(
    line: str, expected: tuple[str, None, float], tmp_path: Path
) -> None:
    text = "hello\n" + "".join(line.format(1 + k // 5, 10 * k) + "\n" for k in range(1, 8))
    run = load(written(tmp_path, text))
    rows = run.scalars.filter(run.scalars["tag"] == expected[0])
    assert rows["value"].to_list() == [expected[2]] * 7
    if "{1}" in line and "Train Epoch" not in line:
        assert rows["step"].to_list() == [10 * k for k in range(1, 8)]
    note = run.events_of("note")["payload"][0]
    assert '"dialect":"automatic"' in note
    assert '"used":7' in note


def test_two_lines_are_too_few_for_the_automatic_mode(tmp_path: Path) -> None:
    path = written(tmp_path, "step=1 loss=2.5\nstep=2 loss=2.4\n")
    assert detect(path) is None


TOML = """
[[dialect]]
name = "mine"
what = "our trainer"
carry = ["epoch"]
first_step = 0
metrics = { L = "train/loss" }
scale = { dt = 0.001 }
[[dialect.pattern]]
contains = "EP "
regex = '^EP (?P<epoch>\\d+)$'
[[dialect.pattern]]
contains = "it "
regex = '^it (?P<step>\\d+) L=(?P<L>[-+.\\deE]+) dt=(?P<dt>\\d+)$'
opening = '^it \\d+ L='
[[dialect.pattern]]
regex = '^ev (?P<step>\\d+) (?P<pairs>.*)$'
style = "equals"
split = "eval"
"""


def test_a_dialect_of_the_user_is_read_by_its_toml(tmp_path: Path) -> None:
    toml = tmp_path / "mine.toml"
    toml.write_text(TOML)
    log = written(tmp_path, "EP 2\nit 5 L=2.5 dt=1500\nit 6 L=2.4 d\nev 6 loss=2.6, acc=0.5\n")
    run = read(log, from_toml(toml))
    assert rows_of(run) == [
        ("L", "train", "loss", 5, 2.0, 2.5),
        ("acc", "eval", "acc", 6, 2.0, 0.5),
        ("dt", "", "dt", 5, 2.0, 1.5),
        ("loss", "eval", "loss", 6, 2.0, 2.6),
    ]
    assert run.rejects.select("line", "text").rows() == [(3, "it 6 L=2.4 d")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no \\[\\[dialect\\]\\] in it"),
        ("[[dialect]", "no TOML"),
        ("[[dialect]]\nname = 3", "needs a name"),
        ("[[dialect]]\nname = 'a'", "has no \\[\\[dialect.pattern\\]\\]"),
        ("[[dialect]]\nname = 'a'\npaterns = 3", "unknown key of .*did you mean 'pattern'"),
        ("[[dialect]]\nname = 'a'\n[[dialect.pattern]]\nregex = '(?P<a>x'", "cannot be used: unclosed group"),
        ("[[dialect]]\nname = 'a'\n[[dialect.pattern]]\nregex = '(?P<a>x)(?=y)'", "look-around"),
        ("[[dialect]]\nname = 'a'\n[[dialect.pattern]]\nregex = 'x'", "no named group"),
        ("[[dialect]]\nname = 'a'\n[[dialect.pattern]]\nregex = '(?P<key>x)'", "both are needed"),
        (
            "[[dialect]]\nname = 'a'\n[[dialect.pattern]]\nregex = '(?P<pairs>x)'\nstyle = 'equal'",
            "did you mean 'equals'",
        ),
        ("[[dialect]]\nname = 'a'\ncarry = ['loss']\n[[dialect.pattern]]\nregex = '(?P<a>x)'", "carry is"),
    ],
)
def test_a_broken_toml_says_what_is_wrong_in_which_file(text: str, said: str, tmp_path: Path) -> None:
    toml = tmp_path / "mine.toml"
    toml.write_text(text)
    with pytest.raises(InputError, match=said) as caught:
        from_toml(toml)
    assert "mine.toml" in str(caught.value)


def test_a_missing_toml_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no\.toml: cannot be read"):
        from_toml(tmp_path / "no.toml")


def test_an_expression_made_to_explode_is_read_in_time(tmp_path: Path) -> None:
    toml = tmp_path / "mine.toml"
    toml.write_text("[[dialect]]\nname = 'a'\n[[dialect.pattern]]\nregex = '^(?P<step>[0-9]+) (?P<x>(?:a+)+)b$'\n")
    log = written(tmp_path, f"1 {'a' * 15_000}\n2 aab\nstep=1 loss=2\nstep=2 loss=2\nstep=3 loss=3\n")
    run = read(log, from_toml(toml))
    assert run.rejects["reason"].to_list() == ["x: 'aa' cannot be read"]
