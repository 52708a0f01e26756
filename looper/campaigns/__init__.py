"""Research campaigns: edits of train.py, trained under a fixed budget; a score is kept or discarded, and remembered."""
