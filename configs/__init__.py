"""What to run: the typed schema, the command line that reads recipes, and the recipes."""
