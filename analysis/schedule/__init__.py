"""What the learning rate did: read from a log, recognised, held against its plan, and the difference explained."""
