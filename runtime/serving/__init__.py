"""One model for many concurrent callers.

`scheduler` gathers their texts into micro-batches; `service` is what threads and asyncio tasks call.
"""
