"""Hypothesis for machines that are busy with other work."""

from hypothesis import settings

settings.register_profile("encort", deadline=None)
settings.load_profile("encort")
