"""Many logs: gathered, read by several processes, remembered by their content, joined where they are one run."""
