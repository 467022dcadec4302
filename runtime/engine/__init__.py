"""From token ids to arrays: sessions, threads and the plan of what runs together.

In reading order: `session` runs one graph, `costs` says what a run costs, `planner` groups rows into micro-batches by
it, `engine` runs them, `pending` is work that goes on in threads, `tokenizer_pool` tokenizes in the same threads.
`cores` counts what a container may use, `stats` counts what was done.
"""
