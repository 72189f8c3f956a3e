"""The parts of `analysis.norms`: what healthy runs reach, which runs teach nothing, and the file that keeps it."""
