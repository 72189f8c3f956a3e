"""Kinds of the family GAN: the two players of a GAN and the variety of their samples."""

from __future__ import annotations

from analysis.kinds.kind import Kind

__all__ = ["KINDS"]

KINDS = {
    "mode-collapse": Kind("GAN", "the generator's outputs lose their diversity"),
    "discriminator-dominance": Kind("GAN", "the discriminator wins outright and the generator learns nothing"),
    "generator-dominance": Kind("GAN", "the generator fools the discriminator outright"),
}
