"""The Open Inference Protocol, version 2, of KServe and Triton.

`tensors` reads and writes tensors, in JSON and in binary form. `outputs` has the output tensors of each task, and
`endpoints` has the routes. Texts are tensors of the datatype BYTES.
"""
