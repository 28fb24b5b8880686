"""How good a model is and how sure we are of it: predictions over a split, metrics with intervals, paired tests."""
