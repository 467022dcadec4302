"""Measurements behind decisions: layouts and threads, 8 bits."""
