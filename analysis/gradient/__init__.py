"""The parts of `analysis.gradients`: series by layer, their levels, and one judge a question."""
