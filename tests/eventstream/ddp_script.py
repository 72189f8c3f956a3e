"""Two processes train one model: what `torchrun` starts in the tests."""

from __future__ import annotations

import argparse
import atexit
import os
import signal
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset


def rows(rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(rank))
    return x, x.sum(1, keepdim=True)


def plain(given: argparse.Namespace) -> None:
    """A loop by hand, with a recorder in each process and no word between them about it."""
    import aftertrain as at

    dist.init_process_group("gloo")
    rank = dist.get_rank()
    model = DistributedDataParallel(nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    x, y = rows(rank)
    with at.Recorder(given.folder, config={"processes": dist.get_world_size()}) as rec:
        for step in range(given.steps):
            if rank == 1:  # the slower of the two
                torch.linalg.svd(torch.randn(60, 60))
            loss = (model(x) - y).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rec.log(step, {"loss": loss, "weight": model.module.weight.detach().sum()}, split="train")
            if (rank, step) == (given.dies, given.steps // 2):
                os.kill(os.getpid(), signal.SIGKILL)
    dist.destroy_process_group()


def with_lightning(given: argparse.Namespace) -> None:
    """The same by a Trainer of Lightning."""
    import lightning

    import aftertrain as at

    class Line(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(4, 1)

        def training_step(self, batch: Any, index: int) -> Any:
            loss = (self.net(batch[0]) - batch[1]).square().mean()
            self.log("train_loss", loss)
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.05)

    data = DataLoader(TensorDataset(*rows(0)), batch_size=2)
    lightning.Trainer(
        accelerator="cpu", devices=2, strategy="ddp", max_steps=given.steps, logger=at.LightningLogger(given.folder),
        log_every_n_steps=1, enable_progress_bar=False, enable_model_summary=False,
    ).fit(Line(), data)  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("kind", choices=["plain", "with_lightning"])
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--dies", type=int, default=-1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    {"plain": plain, "with_lightning": with_lightning}[arguments.kind](arguments)
    atexit._run_exitfuncs()  # as an interpreter that ends does, and a process that was forked does not
