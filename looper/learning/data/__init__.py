"""Episodes become training examples."""
