"""Checkpoint to verified bundle.

In reading order:
`two_encoders`, `embedding_settings`, `checkpoint`: what was trained, in eager PyTorch;
`oracle`, `samples`: what it gives, for batches of real texts;
`description`, `architectures`: the same weights, named neutrally;
`graph`, `layouts`, `encoder`, `heads`: the ONNX graph, authored from them;
`trained`: all of this for one bundle;
`quantization`, `calibration`, `eight_bit`: the graph in 8 bits;
`half`: in 16 bits, for GPUs;
`portable`, `variants`: Optimum's graph, and all graphs in their files;
`stand_in`, `verify`: are they the same model?
`evaluation`, `search`: which of them labelled data allows;
`exporter`: the whole walk, one call.
"""
