from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

#: Peak resident memory of the judging itself: what the process grows by after its libraries are loaded.
_GROWTH = """
import sys
from pathlib import Path
import analysis.weights.sweeps
from analysis.weights import differences as d, statistics as s
from parsers.checkpoints.opening import open_checkpoint
import numpy as np
from analysis.weights.sweeps import moments_of_part
from analysis.weights.pair_sums import compiled_sums
from parsers.checkpoints.tensors import Tensor
w = Tensor("w", "float32", (8,), None)
moments_of_part(np.ones(8, "f4"), w), compiled_sums(np.ones(8, "f4"), np.zeros(8, "f4"), w, w)
def peak():
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
before = peak()
with open_checkpoint(sys.argv[1]) as a, open_checkpoint(sys.argv[2]) as b:
    s.statistics(a)
    d.differences(a, b)
assert "torch" not in sys.modules
print(peak() - before)
"""


def test_a_checkpoint_of_many_tensors_needs_the_memory_of_a_few(tmp_path: Path) -> None:
    drawn = np.random.default_rng(0).normal(size=(1024, 1024)).astype("f4")
    for name in "ab":
        save_file({f"w{n}": drawn + n for n in range(60)}, tmp_path / f"{name}.safetensors")
    files = [str(tmp_path / f"{name}.safetensors") for name in "ab"]
    done = subprocess.run([sys.executable, "-c", _GROWTH, *files], capture_output=True, text=True, check=True)
    # 240 MB a file; what may be held at once is 64 MB, and the threads' own memory comes on top
    assert float(done.stdout) < 130
