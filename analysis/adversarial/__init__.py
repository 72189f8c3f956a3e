"""What `analysis.gan` is made of: the signals of both players, and their findings in words."""
