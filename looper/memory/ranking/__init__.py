"""What to try next: effects learned from experiments, and the policies that rank methods and queries by them."""
