"""A model's stats for monitoring systems, one file a system, each behind its extra."""
