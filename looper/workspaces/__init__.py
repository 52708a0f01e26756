"""Fresh git checkouts, and the sandboxes that run commands in them."""
