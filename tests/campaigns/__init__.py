"""Tests of research campaigns."""
