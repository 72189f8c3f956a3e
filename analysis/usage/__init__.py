"""What `analysis.resources` is made of: memory that climbs, limits that it meets, speed that falls and stays low."""
