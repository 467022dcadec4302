"""Adapters that give a bundle to other libraries, with the names and types that these libraries expect.

One file or folder per library. Each needs only its own library, and no file of encort outside of this room imports it.
"""
