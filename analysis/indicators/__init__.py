"""What `analysis.health` is made of: the indicators, the numbers that they show, and the trend of the loss."""
