"""The bundle: the folder that export writes and the runtime reads.

Reading order:

1. `manifest`: the content of `encort.json`.
2. `schema`: strict reading of JSON into dataclasses.
3. `manifest_file`: reads `encort.json`, and has the rules that it must follow.
4. `identity`: whether a file was written or replaced.
5. `external_data`: the files of weights that a graph names.
6. `files`: files whose content was checked, and graphs that are watched for changes.
7. `bundle`: opens a folder and checks its files.
8. `cpu`: which variants this processor can run.
"""
