"""Ladders: families of small runs from one recipe, and the law they give."""
