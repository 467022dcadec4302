"""The ONNX graph of an encoder and its heads, authored from weights.

In reading order: `description` names weights by what they do, `architectures` finds them in a checkpoint, `builder`
writes nodes, `layouts` is attention in each layout, `encoder` and `heads` are the graph, `float16` halves weights.
"""
