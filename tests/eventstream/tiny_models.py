"""Tiny models and data for tests of what is recorded of a training: a language model, and one of text and audio."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

WIDTH, WORDS, SOUNDS = 16, 48, 24


def language_model() -> Any:
    """GPT-2 of two layers and width 16, from a configuration; no weights are loaded."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=WORDS,
        n_positions=32,
        n_embd=WIDTH,
        n_layer=2,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
        loss_type="ForCausalLM",
    )
    return GPT2LMHeadModel(config)


def sentences(count: int = 64, length: int = 12, padding: int = 3, ignored: int = 2) -> list[dict[str, torch.Tensor]]:
    """Random token rows whose last `padding` positions are padding, and whose first `ignored` labels do not count."""
    made = torch.Generator().manual_seed(1)
    rows = []
    for _ in range(count):
        ids = torch.randint(1, WORDS, (length,), generator=made)
        mask = torch.ones(length, dtype=torch.long)
        mask[length - padding :] = 0
        ids[length - padding :] = 0
        labels = ids.clone()
        labels[:ignored] = -100
        rows.append({"input_ids": ids, "attention_mask": mask, "labels": labels})
    return rows


@dataclass
class Spoken:
    """What the model of text and audio gives back."""

    loss: torch.Tensor | None = None
    text_logits: torch.Tensor | None = None
    audio_logits: torch.Tensor | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    generated_speaker_embedding: torch.Tensor | None = None

    def __getitem__(self, place: int) -> Any:
        return self.loss if place == 0 else self.text_logits


class TextAndAudio(nn.Module):
    """One layer of attention over tokens of text and audio (ids from `WORDS` on), a head for each, a speaker."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(WORDS + SOUNDS, WIDTH)
        self.attend = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.text, self.audio = nn.Linear(WIDTH, WORDS), nn.Linear(WIDTH, SOUNDS)
        self.speaker = nn.Linear(WIDTH, 8)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        audio_token_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        audio_labels: torch.Tensor | None = None,
        speaker_embedding: torch.Tensor | None = None,
        x_vector: torch.Tensor | None = None,
    ) -> Spoken:
        x = self.embed(input_ids)
        x, weights = self.attend(x, x, x, need_weights=True, average_attn_weights=False)
        text, audio = self.text(x), self.audio(x)
        loss = None
        if labels is not None and audio_labels is not None:
            loss = nn.functional.cross_entropy(text.flatten(0, 1), labels.flatten())
            loss = loss + nn.functional.cross_entropy(audio.flatten(0, 1), audio_labels.flatten())
        return Spoken(loss, text, audio, (weights,), self.speaker(x.mean(dim=1)))


def spoken(count: int = 32, length: int = 10) -> list[dict[str, torch.Tensor]]:
    """Rows whose second half is audio."""
    made = torch.Generator().manual_seed(2)
    half, rows = length // 2, []
    for _ in range(count):
        ids = torch.randint(1, WORDS, (length,), generator=made)
        ids[half:] = torch.randint(WORDS, WORDS + SOUNDS, (length - half,), generator=made)
        text, audio = ids.clone(), ids.clone() - WORDS
        text[half:], audio[:half] = -100, -100
        rows.append(
            {
                "input_ids": ids,
                "attention_mask": torch.ones(length, dtype=torch.long),
                "audio_token_mask": (torch.arange(length) >= half).long(),
                "labels": text,
                "audio_labels": audio,
                "speaker_embedding": torch.ones(8),
            }
        )
    return rows


def arguments(folder: Path, **changes: Any) -> Any:
    """TrainingArguments of a short, silent training on the CPU."""
    from transformers import TrainingArguments

    settings: dict[str, Any] = {
        "output_dir": str(folder),
        "max_steps": 12,
        "per_device_train_batch_size": 4,
        "logging_steps": 3,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "seed": 7,
    }
    return TrainingArguments(**{**settings, **changes})
