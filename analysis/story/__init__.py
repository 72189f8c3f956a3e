"""What `analysis.incidents` is made of: links between kinds, onsets, the joining, facts of the log, and the telling."""
