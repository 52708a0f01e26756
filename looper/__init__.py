"""looper: a laboratory for agents that learn from their own runs."""
