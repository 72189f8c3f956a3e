"""Names of checkpoints as people and frameworks give them: what they tell, and what they only seem to tell."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parsers.checkpoints.save_names import Told, folder_told, told_by


@pytest.mark.parametrize(
    ("name", "step", "epoch"),
    [
        ("epoch=3-step=1200.ckpt", 1200, 3),  # Lightning
        ("epoch=3-step=1200-v1.ckpt", 1200, 3),
        ("epoch=03-val_loss=0.25.ckpt", None, 3),
        ("sample-step=500-val_wer=0.1234.ckpt", 500, None),
        ("step_1000.pt", 1000, None),
        ("step1000.pt", 1000, None),
        ("global_step1000", 1000, None),  # DeepSpeed
        ("iter_0001000", 1000, None),  # Megatron
        ("iter_80000.pth", 80000, None),  # OpenMMLab
        ("epoch_12.pth", None, 12),
        ("checkpoint_epoch_10.pth", None, 10),
        ("ckpt_ep3.pth", None, 3),
        ("epoch_1_0.000.pth", None, 1),
        ("epoch3_acc93.pth", None, 3),
        ("epoch_10_loss_0.25.pt", None, 10),
        ("1epoch.pth", None, 1),  # ESPnet
        ("10_epochs.pt", None, 10),
        ("rl_model_1000_steps.pt", 1000, None),
        ("unet_step100k.pt", 100_000, None),
        ("name_e8_s400.pth", 400, 8),  # GPT-SoVITS
        ("checkpoint_1_500.pt", 500, 1),  # fairseq
        ("it500.pt", 500, None),
        ("llama-7b-step-2000.pt", 2000, None),
    ],
)
def test_a_word_before_or_behind_a_number_says_what_it_counts(name: str, step: int | None, epoch: float | None) -> None:
    told = told_by(name)
    assert (told.step, told.epoch, told.number) == (step, epoch, None)


@pytest.mark.parametrize(
    ("name", "number", "words"),
    [
        ("model_0001000.pth", 1000, ()),  # detectron2
        ("G_1000.pth", 1000, ("g",)),  # VITS
        ("net_g_1000.pth", 1000, ("g",)),
        ("50_net_D_A.pth", 50, ("d", "a")),  # CycleGAN
        ("checkpoint3.pt", 3, ()),  # fairseq: an epoch
        ("checkpoint_10000.pth", 10000, ()),  # Coqui: a step
        ("checkpoint-12.pth.tar", 12, ()),  # timm: an epoch
        ("0100000.pt", 100000, ()),
        ("model.10.pt", 10, ()),
        ("unet_100k.pt", 100_000, ("unet",)),
        ("ema_0.9999_100000.pt", 100000, ("ema",)),
        ("model_1000_ema.pt", 1000, ("ema",)),
        ("model_0000.pt", 0, ()),
    ],
)
def test_of_a_number_alone_nothing_says_what_it_counts(name: str, number: int, words: tuple[str, ...]) -> None:
    told = told_by(name)
    assert (told.step, told.epoch, told.number, told.words) == (None, None, number, words)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet50.pth", ("resnet50",)),
        ("wav2vec2.pt", ("wav2vec2",)),
        ("fold_1.pt", ("fold1",)),
        ("speaker_3.pth", ("speaker3",)),
        ("DiT-XL-2-256x256.pt", ("dit", "xl", "2", "256x256")),
        ("model_20240115_120000.pt", ()),
        ("model_2024-01-15.pt", ()),
        ("clean.pt", ("clean",)),
        ("mp_rank_03_model_states.pt", ("mprank03",)),  # DeepSpeed, Megatron: a part of the model, and no copy
        ("mp_rank_00_001", ("mprank00x001",)),
        ("ckpt.pt", ()),
        ("rnn_layers=2_hidden=72.pt", ("rnn", "layers2", "hidden", "72")),
    ],
)
def test_numbers_that_are_part_of_a_name_count_nothing(name: str, words: tuple[str, ...]) -> None:
    told = told_by(name)
    assert (told.counts, told.words) == (False, words)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("last.ckpt", "last"),
        ("last-v1.ckpt", "last"),
        ("best_model.pth", "best"),
        ("valid.acc.best.pth", "best"),
        ("model_final.pth", "final"),
        ("G_latest.pth", "last"),
        ("model_ema.pth", "ema"),
        ("best_ema.pt", "best"),
        ("init.pt", "init"),
        ("bestiary.pt", ""),
        ("blast.pt", ""),
    ],
)
def test_labels_are_whole_words(name: str, label: str) -> None:
    assert told_by(name).label == label


@pytest.mark.parametrize(
    ("name", "rank", "step"),
    [("model_rank0.pt", 0, None), ("step_100_rank_1.pt", 1, 100), ("local_rank_2.pt", 2, None)],
)
def test_a_rank_is_no_counter(name: str, rank: int, step: int | None) -> None:
    told = told_by(name)
    assert (told.rank, told.step, told.number) == (rank, step, None)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("checkpoint-500", Told(step=500)),
        ("checkpoint_3", Told(number=3)),  # accelerate counts its saves
        ("epoch_3", Told(epoch=3.0)),
        ("rank_1", Told(rank=1)),
        ("1000", Told(number=1000)),
        ("exp-3", None),
        ("run_2", None),
        ("phase4", None),
        ("step2_finetune", None),
        ("best", None),
        ("checkpoints", None),
    ],
)
def test_a_folder_counts_only_where_its_name_is_nothing_else(name: str, told: Told | None) -> None:
    assert folder_told(name) == told


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 10**9), st.integers(0, 9999))
def test_every_step_and_epoch_of_lightning_is_read(step: int, epoch: int) -> None:
    assert told_by(f"epoch={epoch}-step={step}.ckpt") == Told(step=step, epoch=float(epoch))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=60))
def test_any_name_can_be_read(name: str) -> None:
    assert told_by(name).words is not None
