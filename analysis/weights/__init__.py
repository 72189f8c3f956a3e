"""What the weights of a checkpoint say: statistics, spectra, changes between saves; the parts of `checkpoints`."""
