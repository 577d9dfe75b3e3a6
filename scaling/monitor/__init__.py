"""A run watched: how it will end, what more of it gains, and whether that is worth it."""
