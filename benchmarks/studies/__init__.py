"""Scripts whose output the documents quote.

`layout_timing` for layouts, threads and the queue, `int8` for 8 bits, `space` for the limits of `encort compat`,
`long_inputs` for time and memory by length.
"""
