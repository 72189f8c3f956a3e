"""The files that the Hugging Face Trainer and its relatives write."""
