"""What every test stands on: the package under test is the installed wheel, and figures need no screen."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

#: The same examples in every run: a test that fails once in a hundred runs is no gate.
settings.register_profile("same every time", derandomize=True)
settings.load_profile("same every time")

ROOT = Path(__file__).parents[1]


def pytest_configure() -> None:
    """With AFTERTRAIN_WHEEL=1 (as `make test` sets it) the tests refuse to run on the source tree."""
    os.environ.setdefault("MPLBACKEND", "Agg")
    # At the end of the path, so that `benchmarks` and `data` are found and the installed packages still come first.
    sys.path.append(str(ROOT))
    import aftertrain

    where = Path(aftertrain.__file__).resolve()
    if os.environ.get("AFTERTRAIN_WHEEL") == "1" and "site-packages" not in where.parts:
        raise pytest.UsageError(f"the tests must run the installed wheel, but aftertrain is {where}")


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of the sample runs that the project trained itself."""
    return ROOT / "data" / "samples"


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The cache of runs that were read is the tests' own, and not the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
