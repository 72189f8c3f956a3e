"""Plans: what was meant to happen, read from what the user declares and from the configurations of a run."""
