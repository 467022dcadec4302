"""Scripts whose output docs/decisions quotes: `layout_timing` for layouts, threads and queue, `int8` for 8 bits."""
