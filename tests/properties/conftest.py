"""Settings of hypothesis for all tests of this folder."""

from hypothesis import settings

# No deadline: the machine may be busy with other work.
settings.register_profile("encort", deadline=None)
settings.load_profile("encort")
