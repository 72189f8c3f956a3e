"""What `analysis.losses` and `analysis.curriculum` are made of: the loss table, its sums, weights and schedules."""
