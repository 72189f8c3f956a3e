"""Checkpoints on disk: which tensors they hold and where the bytes lie; nothing of a file is ever executed."""
