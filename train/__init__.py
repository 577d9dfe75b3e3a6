"""Time: the train step, the loop around it, checkpoints, evaluation, and text."""
