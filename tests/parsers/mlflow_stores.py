"""What MLflow's own client leaves, for all tests that read it: written by one process, which takes seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.once import once

__all__ = ["STEPS", "mlflow_stores"]

STEPS = 100
#: What each folder of stores, `mlruns/` and `mlflow.db`, holds: a function of the two addresses.
#: Nobody needs these stores after a loss of power, so no commit waits for the disk; and MLflow's migrations, which
#: make the tables one after the other, run once: each store begins as a copy of the first, still empty one.
_WRITE = f"""
import shutil, sys
from sqlalchemy import Engine, event
from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient

T = 1_700_000_000_000

def one_run(client, folder):
    eid = client.create_experiment("exp-a", artifact_location="file:///artifacts")
    rid = client.create_run(eid, run_name="kind-sun", start_time=T).info.run_id
    rows = [Metric("train/loss", 1 / (i + 1), T + i * 250, i) for i in range(30)]
    client.log_batch(rid, rows, [Param("lr", "0.1"), Param("opt/name", "adam")], [])
    client.set_terminated(rid, "FINISHED")

def two_experiments(client, folder):
    # two runs each; the numbers of a run depend on its place
    for e, experiment in enumerate(("exp-a", "exp-b")):
        eid = client.create_experiment(experiment, artifact_location=f"file://{{folder}}/artifacts")
        for r in range(2):
            rid = client.create_run(eid, run_name=f"run-{{e}}{{r}}", start_time=T + e * 10 + r).info.run_id
            rows = [Metric("train/loss", (1 + e + r) / (i + 1), T + i * 250, i) for i in range({STEPS})]
            odd = [float("nan"), float("inf"), float("-inf"), 5e-324, 1e308]
            rows += [Metric("odd values", v, T + i, i) for i, v in enumerate(odd)]
            params = [Param("lr", "0.1"), Param("epochs", "12"), Param("opt/name", "adam"), Param("amp", "True")]
            client.log_batch(rid, rows, params, [RunTag("who", "line one\\nline two <script>")])
            client.set_terminated(rid, "FAILED" if r else "FINISHED")

def attempts(client, folder):
    # one run that was begun again three times, at the steps of tests/parsers/test_resumes.py
    rid = client.create_run(client.create_experiment("e"), start_time=T).info.run_id
    for attempt, (first, last) in enumerate(((10, 100), (70, 140), (100, 110), (90, 160))):
        steps = range(first, last + 1, 10)
        rows = [Metric("train/loss", attempt + s / 1000, T + 1_000_000 * attempt + s, s) for s in steps]
        client.log_batch(rid, rows)

event.listen(Engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
writers = one_run, two_experiments, attempts
first, *others = (sys.argv[1] + "/" + write.__name__ + "/mlflow.db" for write in writers)
MlflowClient(tracking_uri=f"sqlite:///{{first}}")
for other in others:
    shutil.copyfile(first, other)
for write in writers:
    folder = sys.argv[1] + "/" + write.__name__
    for uri in (f"sqlite:///{{folder}}/mlflow.db", f"file://{{folder}}/mlruns"):
        write(MlflowClient(tracking_uri=uri), folder)
"""


def _write(folder: Path) -> None:
    for name in ("one_run", "two_experiments", "attempts"):
        (folder / name).mkdir()
    told_to = {"MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1"}
    command = [sys.executable, "-c", _WRITE, str(folder)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=180, env={**os.environ, **told_to}, cwd=folder
    )
    assert done.returncode == 0, done.stderr


def mlflow_stores(what: str) -> Path:
    """The folder with the stores of "one_run", "two_experiments" or "attempts"; to be read only."""
    return once("mlflow", _write) / what
