"""aftertrain: judge a training run from what it left behind. `import aftertrain as at`; names load when first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
IS_AFTERTRAIN = True

#: Public name -> module that holds it. Nothing heavy is imported before a name is used.
_PUBLIC = {
    "AccelerateTracker": "eventstream.accelerate",
    "AftertrainCallback": "eventstream.huggingface",
    "AftertrainError": "eventstream.errors",
    "Finding": "analysis.findings",
    "InputError": "eventstream.errors",
    "Limit": "analysis.kinds",
    "LightningLogger": "eventstream.lightning",
    "Measure": "analysis.limits",
    "NotApplicable": "analysis.findings",
    "Recorder": "eventstream.recorder",
    "RecordingTrainer": "eventstream.huggingface",
    "Run": "parsers.run",
    "RunSet": "parsers.run",
    "TensorBoardMirror": "eventstream.tensorboard_mirror",
    "TextLog": "eventstream.text_log",
    "WandbMirror": "eventstream.wandb_mirror",
    "anomalies": "analysis.anomalies",
    "check": "analysis.custom_checks",
    "checkpoints": "analysis.checkpoints",
    "convergence": "analysis.convergence",
    "curriculum": "analysis.curriculum",
    "diagnose": "analysis.diagnose",
    "diff": "analysis.diff",
    "gan": "analysis.gan",
    "gradients": "analysis.gradients",
    "health": "analysis.health",
    "hidden_facts": "analysis.hidden_facts",
    "inject": "analysis.inject",
    "learning_rate": "analysis.learning_rate",
    "load": "parsers.loading",
    "load_all": "parsers.loading",
    "losses": "analysis.losses",
    "norms": "analysis.norms",
    "plan": "analysis.plan",
    "ranks": "analysis.ranks",
    "repeated_data": "analysis.repeated_data",
    "report": "analysis.report",
    "selftest": "analysis.selftest",
    "sources": "analysis.sources",
    "resources": "analysis.resources",
    "speaker_embeddings": "analysis.speaker_embeddings",
    "train_eval_gap": "analysis.train_eval_gap",
    "watch": "eventstream.watch",
    "watch_inputs": "eventstream.contracts",
}
__all__ = [*sorted(_PUBLIC), "__version__"]

if TYPE_CHECKING:
    from analysis.anomalies import anomalies as anomalies
    from analysis.checkpoints import checkpoints as checkpoints
    from analysis.convergence import convergence as convergence
    from analysis.curriculum import curriculum as curriculum
    from analysis.custom_checks import check as check
    from analysis.diagnose import diagnose as diagnose
    from analysis.diff import diff as diff
    from analysis.findings import Finding as Finding
    from analysis.findings import NotApplicable as NotApplicable
    from analysis.gan import gan as gan
    from analysis.gradients import gradients as gradients
    from analysis.health import health as health
    from analysis.hidden_facts import hidden_facts as hidden_facts
    from analysis.inject import inject as inject
    from analysis.kinds import Limit as Limit
    from analysis.learning_rate import learning_rate as learning_rate
    from analysis.limits import Measure as Measure
    from analysis.losses import losses as losses
    from analysis.norms import norms as norms
    from analysis.plan import plan as plan
    from analysis.ranks import ranks as ranks
    from analysis.repeated_data import repeated_data as repeated_data
    from analysis.report import report as report
    from analysis.resources import resources as resources
    from analysis.selftest import selftest as selftest
    from analysis.sources import sources as sources
    from analysis.speaker_embeddings import speaker_embeddings as speaker_embeddings
    from analysis.train_eval_gap import train_eval_gap as train_eval_gap
    from eventstream.accelerate import AccelerateTracker as AccelerateTracker
    from eventstream.contracts import watch_inputs as watch_inputs
    from eventstream.errors import AftertrainError as AftertrainError
    from eventstream.errors import InputError as InputError
    from eventstream.huggingface import AftertrainCallback as AftertrainCallback
    from eventstream.huggingface import RecordingTrainer as RecordingTrainer
    from eventstream.lightning import LightningLogger as LightningLogger
    from eventstream.recorder import Recorder as Recorder
    from eventstream.tensorboard_mirror import TensorBoardMirror as TensorBoardMirror
    from eventstream.text_log import TextLog as TextLog
    from eventstream.wandb_mirror import WandbMirror as WandbMirror
    from eventstream.watch import watch as watch
    from parsers.loading import load as load
    from parsers.loading import load_all as load_all
    from parsers.run import Run as Run
    from parsers.run import RunSet as RunSet


def __getattr__(name: str) -> Any:
    module = _PUBLIC.get(name)
    if module is None:
        raise AttributeError(f"module 'aftertrain' has no attribute {name!r}; it has: {', '.join(sorted(_PUBLIC))}")
    refuse_foreign(module.partition(".")[0])
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


def refuse_foreign(package: str) -> None:
    """Raise ImportError, naming the file, when a foreign package of this name stands before ours on the path."""
    found = importlib.import_module(package)
    if not getattr(found, "IS_AFTERTRAIN", False):
        where = getattr(found, "__file__", None) or next(iter(getattr(found, "__path__", ["unknown"])))
        raise ImportError(
            f"aftertrain needs its own package {package!r}, but Python finds another one first: {where}. "
            f"Rename that file or folder, or start Python from another folder."
        )
