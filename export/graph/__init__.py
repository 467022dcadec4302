"""The ONNX graph of an encoder and its heads, written from the checkpoint's weights.

In reading order:
1. `description`: an encoder and its heads as plain data, with neutral names for the weights.
2. `architectures`: one table per architecture that finds those weights in a checkpoint.
3. `builder`: writes nodes, weights, inputs and outputs into an ONNX graph.
4. `standard` and `operators`: linear layers, norms and activations.
5. `layouts`: attention, positions and masks for each way to arrange the tokens of several texts.
6. `disentangled`, `layers`, `encoder`, `sentence` and `heads`: the graph itself.
7. `float16`: the same description with weights in half precision.
"""
