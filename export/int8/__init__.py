"""The graph in 8 bits.

In reading order: `calibration` observes activations, `quantization` chooses ranges, `model` is the quantized encoder,
`search` takes the fastest one that labelled data allows.
"""
