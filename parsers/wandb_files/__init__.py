"""The parts of Weights & Biases' run folders."""
