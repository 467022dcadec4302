"""The routes, one file per contract: each gives a list of `Endpoint`s."""
