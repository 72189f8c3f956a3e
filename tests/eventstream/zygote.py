"""Processes that record and are killed: forked by one interpreter that has imported what they need, in milliseconds."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import textwrap
from pathlib import Path
from types import TracebackType

import eventstream

#: Where the package under test lies: in site-packages when the wheel is tested.
ROOT = Path(eventstream.__file__).parents[1]

_SERVER = """
import os, struct, sys
{prelude}
for line in sys.stdin:
    fifo, *arguments = line.rstrip("\\n").split("\\t")
    pid = os.fork()
    if not pid:
        try:
            pipe = os.open(fifo, os.O_WRONLY)
            def say(number):
                os.write(pipe, struct.pack("<q", number))
            record(say, *arguments)
        finally:
            os._exit(1)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Zygote:
    """An interpreter that runs `record(say, *arguments)`, which `prelude` defines, in forked children until killed."""

    def __init__(self, prelude: str) -> None:
        env = {key: value for key, value in os.environ.items() if key != "RANK"}
        env["PYTHONPATH"] = os.pathsep.join([str(ROOT), env.get("PYTHONPATH", "")])
        code = _SERVER.replace("{prelude}", textwrap.dedent(prelude))
        self._server = subprocess.Popen(
            [sys.executable, "-c", code], env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __enter__(self) -> Zygote:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.close()
        self._server.stdout.close()
        assert self._server.wait() == 0

    def killed_after(self, sayings: int, fifo: Path, *arguments: object) -> list[int]:
        """What a child said, killed as soon as it had said so much; `fifo` is a path for the pipe to it."""
        assert self._server.stdin is not None and self._server.stdout is not None
        os.mkfifo(fifo)
        self._server.stdin.write("\t".join([str(fifo), *map(str, arguments)]) + "\n")
        self._server.stdin.flush()
        pid = int(self._server.stdout.readline())
        with fifo.open("rb", buffering=0) as pipe:
            said = b""
            while len(said) < 8 * sayings:
                more = pipe.read(8)
                assert more, "the child ended by itself"
                said += more
            os.kill(pid, signal.SIGKILL)
            while more := pipe.read(1 << 16):
                said += more
        assert int(self._server.stdout.readline()) == -signal.SIGKILL
        return [number for (number,) in struct.iter_unpack("<q", said[: len(said) // 8 * 8])]
