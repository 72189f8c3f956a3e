"""What a series is, by its name and by what stands beside it."""
