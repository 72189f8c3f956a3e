"""What `analysis.ranks` is made of: which processes are there and to the end, and whether they agree."""
