"""The race against other systems, each in an environment of its own."""
