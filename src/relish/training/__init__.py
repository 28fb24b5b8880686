"""Step 4: recipes, optimiser groups, the one loop, checkpoints."""
