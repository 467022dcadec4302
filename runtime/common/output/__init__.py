"""Text for people and for files: names of strangers, such as labels and paths, cannot change what it shows.

Reading order:

1. `escaping`: control characters and invalid Unicode, for any text and for JSON.
2. `markdown`: escaped text, and tables.
3. `terminal`: what the command line prints and logs.
"""
