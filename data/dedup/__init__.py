"""What is there more than once, or also in an evaluation set: found by pure functions."""
