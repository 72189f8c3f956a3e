"""The families of models that are trained: small, quick, and each with noise, layers and an eval of its own."""

from __future__ import annotations

from benchmarks.faults.recipe import Recipe
from benchmarks.faults.tasks.autoencoder import Autoencoder
from benchmarks.faults.tasks.base import Task
from benchmarks.faults.tasks.classifier import Classifier
from benchmarks.faults.tasks.distillation import Distillation
from benchmarks.faults.tasks.language import Language
from benchmarks.faults.tasks.regression import Regression
from benchmarks.faults.tasks.speakers import Speakers

__all__ = ["FAMILIES", "Task", "task_of"]

#: The families with one loss; `gan` has two players and a loop of its own.
FAMILIES: dict[str, type[Task]] = {
    "classifier": Classifier,
    "language": Language,
    "autoencoder": Autoencoder,
    "regression": Regression,
    "distillation": Distillation,
    "speaker": Speakers,
}


def task_of(recipe: Recipe) -> Task:
    """The task of a recipe, its data drawn and its model initialised."""
    return FAMILIES[recipe.family](recipe)
