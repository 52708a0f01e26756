"""The research task that looper brings: a small language model to improve, and the data that scores it."""
