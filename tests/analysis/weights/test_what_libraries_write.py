"""Saves that Lightning, transformers and torch themselves write are judged, and none is cried about."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from analysis.weights.one_save import findings_of_save
from analysis.weights.saved import Saved
from analysis.weights.statistics import statistics
from parsers.checkpoints.opening import open_checkpoint
from tests.analysis.weights.trained import Training, loud


def judged(path: Path, step: int | None = None) -> list[Any]:
    with open_checkpoint(path) as checkpoint:
        return findings_of_save(Saved(path.name, checkpoint, statistics(checkpoint), step), run_name="r")


class Settings:
    """Hyper-parameters of a class that no list can know."""

    def __init__(self, width: int) -> None:
        self.width = width


def test_settings_of_a_class_of_the_projects_own_are_information(tmp_path: Path) -> None:
    path = Training.of(tmp_path, "mlp").run(1).save("checkpoint-20.pt", hyper_parameters=Settings(32))
    (found,) = [f for f in judged(path) if f.kind == "checkpoint-unsafe"]
    assert (found.severity, found.evidence["what"]) == ("info", "unknown classes")
    assert "Settings" in str(found.evidence["callables"])


class Planted:
    """What a malicious pickle holds."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch planted",)


def test_a_call_of_the_shell_is_critical_and_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = Training.of(tmp_path, "mlp").run(1).save("checkpoint-20.pt", config={"nested": [Planted()]})
    (found,) = [f for f in judged(path) if f.kind == "checkpoint-unsafe"]
    assert (found.severity, found.evidence["arguments"]) == ("critical", "('touch planted')")
    assert "nothing was called here" in found.message and not (tmp_path / "planted").exists()


def test_a_file_that_ends_early_is_critical_and_says_what_was_read(tmp_path: Path) -> None:
    path = Training.of(tmp_path, "mlp").run(1).save("checkpoint-20.pt")
    path.write_bytes(path.read_bytes()[:-4000])
    found = [f for f in judged(path) if f.kind == "checkpoint-corrupt"]
    assert [f.severity for f in found] == ["critical"]
    assert found[0].evidence["file"] == "checkpoint-20.pt" and "could be read" in found[0].message
    assert found[0].causes[0].startswith("the process ended")


def test_a_save_of_transformers_is_sound(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=32, n_positions=8, n_embd=16, n_layer=2, n_head=2))
    rows = [{"input_ids": torch.arange(n, n + 8) % 32, "labels": torch.arange(n, n + 8) % 32} for n in range(32)]
    arguments = TrainingArguments(
        output_dir=str(tmp_path), max_steps=6, save_steps=6, per_device_train_batch_size=4, use_cpu=True,
        report_to=[], disable_tqdm=True, logging_steps=6, dataloader_pin_memory=False,
    )  # fmt: skip
    Trainer(model=model, args=arguments, train_dataset=rows).train()
    found = judged(tmp_path / "checkpoint-6", 6)
    assert loud(found) == []
    assert {f.kind for f in found} <= {"checkpoint-unsafe"}


@pytest.mark.filterwarnings("ignore:.*LeafSpec")
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*litlogger|.*litmodels|.*GPU available")
def test_a_save_of_lightning_is_sound(tmp_path: Path) -> None:
    import lightning as lightning_

    class Module(lightning_.LightningModule):  # type: ignore[misc]
        def __init__(self, settings: Settings) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))

        def training_step(self, batch: torch.Tensor, _: int) -> torch.Tensor:
            return self.net(batch).pow(2).mean()  # type: ignore[no-any-return]

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.AdamW(self.parameters(), 1e-3)
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]

    trainer = lightning_.Trainer(
        max_epochs=2, default_root_dir=tmp_path, logger=False, enable_checkpointing=False, accelerator="cpu",
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Module(Settings(3)), torch.utils.data.DataLoader(torch.randn(64, 8), batch_size=8))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    found = judged(tmp_path / "last.ckpt")
    assert loud(found) == []
    assert [f.kind for f in found] == ["checkpoint-unsafe"]
