"""Trainings with known faults, and how well they are found: `generate` makes the logs, the score reads them."""
