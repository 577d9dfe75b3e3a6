"""What to train next: laws, fits, intervals, and decisions from tables of runs."""
