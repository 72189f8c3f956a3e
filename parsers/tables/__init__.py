"""From what was read to the tidy tables of a run."""
