"""Making the bundled model from nothing: its corpus and the training of its weights."""
