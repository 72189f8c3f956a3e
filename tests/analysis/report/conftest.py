"""Judged runs to report on, and a real browser to look at the page with."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from html import escape, unescape
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from analysis.diagnose import Diagnosis
from analysis.findings import Finding, NotApplicable, findings_frame
from analysis.result import Result
from parsers.finish import Reject, finish
from parsers.run import Run

HOSTILE = [
    "<script>alert(1)</script>",
    "$x^{2}$ and $\\frac{1}{0}$",
    "two\nlines\tand \x00 a null",
    "left\u202eright\u200f",
    "a|b`c`*d*_e_[f](https://example.org)",
    '"><img src=x onerror=alert(1)>',
    "]]></style></svg></details>",
    "x" * 10_000,
    "lone \udc80 surrogate",
    "{{ 7 * 7 }}{% raw %}",
]


def chromium() -> str | None:
    """The browser's command, or None."""
    return next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without a browser its tests are left out, and said so; on CI they stay and fail, since CI installs one."""
    if chromium() is not None or os.environ.get("CI"):
        return
    gone = [item for item in items if "browser" in getattr(item, "fixturenames", ())]
    if gone:
        items[:] = [item for item in items if item not in gone]
        config.hook.pytest_deselected(items=gone)
        reporter = config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.write_line(f"{len(gone)} tests of the report page need a browser: install chromium to run them")


@dataclass(frozen=True)
class Browser:
    """Headless Chromium; each call starts a fresh profile below `folder`."""

    command: str
    folder: Path

    def run(self, *arguments: str, dark: bool = False) -> subprocess.CompletedProcess[str]:
        """Chromium's standard output and log for some arguments; nothing can be reached over the network."""
        profile = self.folder / f"profile-{len(list(self.folder.iterdir()))}"
        scheme = [f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
        return subprocess.run(
            [
                self.command,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--disable-background-networking",
                "--no-first-run",
                "--hide-scrollbars",
                "--host-resolver-rules=MAP * ~NOTFOUND",
                "--enable-logging=stderr",
                f"--user-data-dir={profile}",
                *scheme,
                *arguments,
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )

    def measure(self, page: str, script: str, widths: Sequence[int], *, dark: bool = False) -> list[dict[str, Any]]:
        """What `script`, a function of the page's window, returns for the page at each width."""
        frames = "".join(
            f'<iframe srcdoc="{escape(page)}" style="width:{width}px;height:900px;border:0"></iframe>'
            for width in widths
        )
        wrapper = self.folder / f"wrapper-{len(list(self.folder.iterdir()))}.html"
        wrapper.write_text(
            f"<!doctype html><meta charset=utf-8><body>{frames}<script>onload = () => {{ const measure = {script};"
            "const out = document.createElement('pre'); out.id = 'measured';"
            "const frames = [...document.querySelectorAll('iframe')];"
            "out.textContent = JSON.stringify(frames.map(frame => measure(frame.contentWindow)));"
            "document.body.replaceChildren(out); }</script>",
            encoding="utf-8",
        )
        done = self.run("--virtual-time-budget=4000", "--dump-dom", wrapper.as_uri(), dark=dark)
        found = re.search(r'<pre id="measured">(.*?)</pre>', done.stdout, re.DOTALL)
        assert found, f"the page could not be measured: {done.stderr[-2000:]}"
        measured: list[dict[str, Any]] = json.loads(unescape(found[1]))
        return measured


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Browser:
    command = chromium()
    assert command, "no chromium on the path, which CI must install"
    return Browser(command, tmp_path_factory.mktemp("browser"))


@dataclass(frozen=True, eq=False, repr=False)
class Drawn(Result):
    """A check's result that draws what it is told."""

    title: str = "the check's own figure"

    def plot(self, ax: Any = None, **options: Any) -> Any:
        from analysis.figures import axes

        drawn = axes(ax)
        drawn.bar(self.frame["name"].to_list(), self.frame["value"].to_list(), color="#0072B2")
        drawn.set_title(self.title)
        return drawn


def series(tag: str, values: Any, steps: Any = None) -> pl.DataFrame:
    values = np.asarray(values, float)
    steps = np.arange(len(values)) if steps is None else steps
    return pl.DataFrame(
        {"tag": [tag] * len(values), "step": steps, "value": values}, schema_overrides={"step": pl.Int64}
    )


def judged(run: Run, findings: Sequence[Finding] = (), results: dict[str, Result] | None = None) -> Diagnosis:
    reason = NotApplicable("mode-collapse", "no generator loss in this log")
    return Diagnosis(
        run=run.name,
        frame=findings_frame(findings),
        findings=tuple(findings),
        not_applicable=(reason,),
        source=run,
        results=results or {},
        judged=("outlier", "divergence", *{f.kind: None for f in findings}),
    )


def make_run(name: str, frames: Sequence[pl.DataFrame], **options: Any) -> Run:
    return finish(name, f"runs/{name}", "jsonl", pl.concat(frames), **options)


@pytest.fixture(scope="session")
def spiky() -> Diagnosis:
    """A run of 3,000 steps with a spike, a NaN, components, a configuration and a reject."""
    random = np.random.default_rng(7)
    loss = 2.5 * np.exp(-np.arange(3000) / 700) + 0.4 + 0.03 * random.standard_normal(3000)
    loss[1800] += 3
    loss[2400] = np.nan
    parts = [
        series(f"losses/{c}/weighted", w * (0.5 + random.random(3000))) for c, w in (("kd", 0.7), ("feature", 0.2))
    ]
    every = np.arange(0, 3000, 50)
    run = make_run(
        "spiky",
        [
            series("loss", loss),
            series("eval_loss", loss[::50] + 0.1, every),
            series("lr", np.linspace(1e-3, 0, 3000)),
            *parts,
        ],
        config={"lr": 1e-3, "model": {"layers": 12}},
        plan={"max_steps": 3000},
        rejects=[Reject("train.jsonl", "not JSON", line=812, text='{"loss": 0.4')],
    )
    evidence = {"z_score": 41.2, "observed": 3.61}
    found = [
        Finding("non-finite", "critical", "spiky", "the loss is NaN at step 2400", "loss", 2400, 2400, {"count": 1}),
        Finding(
            "loss-spike", "warning", "spiky", "the loss leaps to 3.61", "loss", 1800, 1801,
            evidence, ("a bad batch",), ("look at the batch",),
        ),
        Finding("loss-spike", "warning", "spiky", "the loss leaps again", "loss", 2100, 2100, {"z_score": 9.0}),
        Finding("clock-skew", "info", "spiky", "the clock goes back by 3 s"),
    ]  # fmt: skip
    return judged(run, found)


@pytest.fixture(scope="session")
def healthy() -> Diagnosis:
    return judged(make_run("healthy", [series("loss", np.exp(-np.arange(500) / 90.0))]))


@pytest.fixture(scope="session")
def hostile() -> Diagnosis:
    """Every text that a log can bring is one that tries to break the page."""
    values = np.linspace(2, 1, 300)
    run = make_run(
        HOSTILE[0],
        [series(name.replace("\udc80", ""), values) for name in HOSTILE],
        config={name.replace("\udc80", ""): name for name in HOSTILE},
        rejects=[Reject(name, name, line=1, text=name) for name in HOSTILE if "\udc80" not in name],
    )
    found = [
        Finding("outlier", "warning", HOSTILE[0], f"{name} is odd", name, 100, 101, {name: name}, (name,), (name,))
        for name in HOSTILE
    ]
    frame = pl.DataFrame({"name": [n.replace("\udc80", "") for n in HOSTILE[:7]], "value": [1.0] * 7})
    own = Drawn(HOSTILE[0], frame, title=HOSTILE[0] + HOSTILE[1])
    whole = judged(run, [f for f in found if f.metric and "\udc80" not in f.metric], {"gan": own})
    return replace(whole, findings=tuple(found))


@pytest.fixture(scope="session")
def make() -> Callable[..., Run]:
    return make_run
