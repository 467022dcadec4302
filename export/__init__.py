"""Export checkpoints as verified bundles.

In reading order:
1. `graph/`: the ONNX graph of an encoder and its heads, written from a checkpoint's weights.
2. `source/`: the checkpoints of a bundle, loaded as eager PyTorch.
3. `verification/`: comparison of a bundle's variants with eager PyTorch.
4. `int8/`: quantized encoders.
5. `traced`, `portable` and `variants`: all graphs of a bundle, written into its folder.
6. `metrics` and `evaluation`: the score of a loaded bundle on labelled data.
7. `options` and `plan`: the options of an export, and the variants that it makes.
8. `exporter`: the whole export; `commands`: its commands.

Each folder imports only from the folders before it.
"""
