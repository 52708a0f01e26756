"""The GPU task of a research agent: a train.py to improve, within five minutes of training."""
