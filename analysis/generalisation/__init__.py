"""What `analysis.train_eval_gap` is made of: pairing, smoothing, trends, overfitting, scale mismatch."""
