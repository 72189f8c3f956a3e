"""How a loss settles: whether it goes on improving, swings instead, or changes how noisy it is."""
