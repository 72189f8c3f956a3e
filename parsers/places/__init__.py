"""Where logs stand: paths on disk, behind URLs and inside archives, and what stands beside them."""
