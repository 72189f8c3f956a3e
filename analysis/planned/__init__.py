"""Parts of the comparison of a run with its plan: how far it came, why it may have ended, what it saved."""
