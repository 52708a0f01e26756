"""The research task that looper brings: a small language model to improve, its data, and the judge of each version."""
