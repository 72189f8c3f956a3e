"""A distributed checkpoint written by torch from two processes, each with its shards; run as a program of its own.

python sharded.py FILE-TO-MEET OUT
"""

from __future__ import annotations

import sys
import warnings


def write(rank: int, world: int, meeting: str, out: str) -> None:
    import torch
    import torch.distributed as dist
    import torch.distributed.checkpoint as dcp
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
    mesh = init_device_mesh("cpu", (world,))
    whole = torch.arange(35.0).reshape(5, 7)
    tree = {
        "rows": distribute_tensor(whole, mesh, [Shard(0)]),
        "columns": distribute_tensor(whole.to(torch.bfloat16), mesh, [Shard(1)]),
        "all": distribute_tensor(whole, mesh, [Replicate()]),
        "one": distribute_tensor(whole[:1], mesh, [Shard(0)]),
        "step": 3,
    }
    dcp.save(tree, checkpoint_id=out)
    dist.destroy_process_group()


if __name__ == "__main__":
    from torch import multiprocessing

    multiprocessing.start_processes(write, args=(2, sys.argv[1], sys.argv[2]), nprocs=2, start_method="fork")
