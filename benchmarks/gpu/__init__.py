"""Everything that must be measured on a GPU, as one script."""
