"""Training of adapters behind one protocol; backends are imported when they train."""
