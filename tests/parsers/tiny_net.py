"""The smallest model that the real Trainer trains."""

from __future__ import annotations

from typing import Any

__all__ = ["tiny_net"]


def tiny_net() -> Any:
    """A linear layer of four inputs that gives its loss, with weights drawn now."""
    import torch

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 1)

        def forward(self, x: Any = None, labels: Any = None) -> dict[str, Any]:
            y = self.layer(x).squeeze(-1)
            return {"loss": ((y - labels) ** 2).mean(), "logits": y}

    return Net()
