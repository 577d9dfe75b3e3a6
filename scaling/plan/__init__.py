"""From a budget to the run it should buy: size, tokens, recipe, machine time, and the next test."""
