"""What `analysis.stream` and `analysis.contracts` are made of: rhythm of a log, and their findings in words."""
