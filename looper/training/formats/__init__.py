"""Adapters for other programs: PEFT's folder is the format on disk, the others are written from it and read back."""
