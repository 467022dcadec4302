"""Measurements of `encort bench` beside the throughput, each in its share of the time.

`calls` times calls of one shape, `load` offers texts to the service, `cold_start` times new processes, `stages` splits
the time on one core, `profile` adds up the time of ONNX Runtime's operators.
"""
