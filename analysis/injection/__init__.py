"""What `analysis.inject` is made of: faults that are planted into the numbers of a log, a file a family."""
