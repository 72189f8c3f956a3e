"""What every test stands on: the package under test is the installed wheel, and figures need no screen."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# A worker has about one core: pools of threads would wait for each other, a third of all time. Before torch is loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Programs that tests start run what is installed too, and not the checkout that they happen to stand in.
os.environ["PYTHONSAFEPATH"] = "1"

#: The same examples in every run, and none timed: a test that fails once in a hundred runs is no gate.
settings.register_profile("same every time", derandomize=True, deadline=None)
settings.load_profile("same every time")

ROOT = Path(__file__).parents[1]
#: The folder of `tests.once`, in the process that made it and removes it; its workers inherit the variable.
_SHARED = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """With AFTERTRAIN_WHEEL=1 (as `make test` sets it) the tests refuse to run on the source tree."""
    os.environ.setdefault("MPLBACKEND", "Agg")
    # At the end of the path, so that `benchmarks` and `data` are found and the installed packages still come first.
    sys.path.append(str(ROOT))
    if "AFTERTRAIN_TESTS_SHARED" not in os.environ:
        config.stash[_SHARED] = os.environ["AFTERTRAIN_TESTS_SHARED"] = tempfile.mkdtemp(prefix="aftertrain-tests-")
    import aftertrain

    where = Path(aftertrain.__file__).resolve()
    if os.environ.get("AFTERTRAIN_WHEEL") == "1" and "site-packages" not in where.parts:
        raise pytest.UsageError(f"the tests must run the installed wheel, but aftertrain is {where}")


def pytest_unconfigure(config: pytest.Config) -> None:
    shared = config.stash.get(_SHARED, None)
    if shared is not None:
        shutil.rmtree(shared)
        del os.environ["AFTERTRAIN_TESTS_SHARED"]


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


@pytest.fixture(scope="module", autouse=True)
def _no_collection_walks_what_was_imported() -> None:
    """A full collection, such as every end of a training asks for, walks only what came since the file began.

    Of a worker that has imported torch and transformers it takes half a second otherwise, hundreds of times.
    """
    gc.collect()
    gc.freeze()
