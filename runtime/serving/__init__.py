"""One model for many concurrent callers.

`scheduler` gathers their texts into micro-batches, from a `row_queue` that has `waiting_rows` of each kind. `calls`
follows one text from its caller to the scheduler, and `service` and `async_service` are what threads and asyncio tasks
call.
"""
