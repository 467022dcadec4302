"""`encort bench`: measure one bundle on this machine.

In reading order: `report` defines what is measured, `bench` measures it. `inputs` gives the texts, `torch_baseline`
runs the checkpoint in eager PyTorch, `load` offers texts to the service, `cold_start` times new processes, `profile`
adds up the time of ONNX Runtime's operators. `page` formats a report for a terminal and as HTML.
"""
