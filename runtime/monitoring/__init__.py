"""Metrics of models for monitoring systems: one file per system, each behind its extra.

`prometheus` and `opentelemetry` both read a `StatsSource`, such as a `Model`.
"""
