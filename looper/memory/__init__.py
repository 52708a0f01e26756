"""The knowledge layer: what the agent can look up."""
