"""The one agent loop, its prompts and its switchable fixes."""
