"""Compiled functions: the decorator of the parsers, under the name by which analyses know it."""

from parsers.compiled import compiled

__all__ = ["compiled"]
