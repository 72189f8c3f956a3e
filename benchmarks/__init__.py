"""Speed side by side with what people use today, as ratios measured in one run: `python -m benchmarks`."""
