"""What tests of `watch` share: a small model, a loop that trains it, and every statistic by obvious loops."""

from __future__ import annotations

import math

import torch
from torch import nn


def mlp(width=16, depth=3, seed=0, **options):
    torch.manual_seed(seed)
    layers = [layer for _ in range(depth) for layer in (nn.Linear(width, width, **options), nn.ReLU())]
    return nn.Sequential(*layers)


def train(model, optimizer, steps, *, seed=1, before_step=lambda: None, width=16):
    noise = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        optimizer.zero_grad()
        x = torch.randn(8, width, generator=noise)
        (model(x) - x).square().mean().backward()
        before_step()
        optimizer.step()


def norm(tensors):
    return math.sqrt(sum(float((t.detach().double() ** 2).sum()) for t in tensors))


class Slow:
    """The slow and obvious version: loops over parameters, around the step."""

    def __init__(self, model, optimizer):
        self.model, self.rows, self.quiet = model, [], {}
        optimizer.register_step_pre_hook(self.before)
        optimizer.register_step_post_hook(self.after)

    def layers(self):
        for name, module in self.model.named_modules():
            own = [p for p in module.parameters(recurse=False) if p.requires_grad]
            if own:
                yield name, own

    def before(self, *_):
        row = {}
        everything = [p for _, own in self.layers() for p in own]
        for suffix, own in [("", everything), *((f"/{name}", own) for name, own in self.layers())]:
            grads = [p.grad for p in own if p.grad is not None]
            row[f"param_norm{suffix}"] = norm(own)
            if grads:
                row[f"grad_norm{suffix}"] = norm(grads)
                row[f"zero_grads{suffix}"] = sum(int((g == 0).sum()) for g in grads) / sum(g.numel() for g in grads)
                bad = sum(int((~g.isfinite()).sum()) for g in grads)
                if bad or not suffix:
                    row[f"nonfinite_grads{suffix}"] = bad
        self.old = {id(p): p.detach().clone() for p in everything}
        self.rows.append(row)

    def after(self, *_):
        everything = [p for _, own in self.layers() for p in own]
        for suffix, own in [("", everything), *((f"/{name}", own) for name, own in self.layers())]:
            was = [self.old[id(p)] for p in own]
            if norm(was):
                self.rows[-1][f"update_ratio{suffix}"] = norm([p - o for p, o in zip(own, was, strict=True)]) / norm(
                    was
                )
