"""What becomes of episodes: training data, and strategies that turn it into skill."""
