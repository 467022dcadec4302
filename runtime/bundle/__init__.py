"""The bundle: the folder that export writes and the runtime reads.

Reading order:

1. `manifest`: the content of `encort.json`.
2. `schema`: strict reading of JSON into dataclasses.
3. `identity`: whether a file was written or replaced.
4. `files`: files whose content was checked, and graphs that are watched for changes.
5. `bundle`: opens a folder and checks its files.
6. `cpu`: which variants this processor can run.
"""
