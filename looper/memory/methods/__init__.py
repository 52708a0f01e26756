"""The curated pack of methods for small language models, and the edits that put them into a train.py."""
