"""The bundle: the folder that export writes and the runtime reads.

Reading order:

1. `manifest`: the content of `encort.json`.
2. `schema`: strict reading of JSON into dataclasses.
3. `files`: files whose content was checked, and graphs that are watched for changes.
4. `bundle`: opens a folder and checks its files.
5. `cpu`: which variants this processor can run.
"""
