"""What tests of loading and of listing share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from parsers.collection import reading


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the logs that are really read."""
    read: list[str] = []
    real = reading.read_run

    def counted(where: Path, format: Any) -> Any:
        read.append(str(where))
        return real(where, format)

    monkeypatch.setattr(reading, "read_run", counted)
    return read
