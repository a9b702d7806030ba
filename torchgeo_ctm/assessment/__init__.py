"""How good a map is, and what it holds: samples, accuracy, areas, relabeled maps."""
