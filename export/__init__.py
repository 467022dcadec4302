"""Checkpoint to verified bundle.

In reading order:
`checkpoint`, `embedding_settings`, `two_encoders`: what was trained, in eager PyTorch;
`description`, `architectures`: the same weights, named neutrally;
`graph`, `encoder`, `heads`: the ONNX graph, authored from them;
`trained`: all of this for one bundle;
`oracle`, `samples`, `verify`: is it the same model?
`quantization`, `calibration`, `eight_bit`: the graph in 8 bits;
`portable`: Optimum's graph;
`evaluation`, `search`: which of them labelled data allows;
`variants`, `exporter`: the whole walk, one call.
"""
