"""From arrays to results.

In reading order: `specs` says what each task needs and gives, `results` are the types that users see, `spans` and
`answers` find parts of a text.
"""
