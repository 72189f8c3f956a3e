"""Launches of torchrun, one after the other: each is a process forked by this one, which has imported what they need.

python launches.py OUT SCRIPT '{"name": ["argument", ...], ...}'

runs `torchrun SCRIPT OUT/name/run argument ...` with two processes for each name, and leaves its exit status in
OUT/name/status and what it said in OUT/name/said.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

# Loaded once here and not by each of nine processes; the script itself imports them again.
import lightning
import torch
from torch.distributed import run
from torch.nn.parallel import DistributedDataParallel

import aftertrain as at

__all__: list[str] = []

LOADED = (lightning.Trainer, at.Recorder, at.LightningLogger, DistributedDataParallel, torch.optim.SGD)

#: Two processes on this machine alone, at a port that the system chooses, forked by the launcher. 127.0.0.1 as the
#: address of both, so that nothing has to be resolved and nothing leaves the machine.
HOW = ["--nproc_per_node", "2", "--rdzv_backend", "c10d", "--rdzv_endpoint", "127.0.0.1:0", "--max_restarts", "0",
       "--local_addr", "127.0.0.1", "--start_method", "fork", "--run_path"]  # fmt: skip


def launch(folder: Path, command: list[str]) -> int:
    """The exit status of torchrun, as a process of its own, which ends as any program does: here, or by its error."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with (folder / "said").open("w") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    run.main([*HOW, *command])
    sys.exit(0)


if __name__ == "__main__":
    out, script, launches = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
    # The first optimizer of a process loads the compiler of torch.
    torch.optim.SGD([torch.nn.Parameter(torch.ones(1))])
    for name, arguments in launches.items():
        (out / name).mkdir()
        status = launch(out / name, [script, str(out / name / "run"), *arguments])
        (out / name / "status").write_text(str(status))
