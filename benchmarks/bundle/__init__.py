"""`encort bench`: measure one bundle on this machine.

In reading order: `report` defines what is measured, `bench` measures it. `budget` divides the time and shows the
progress, `workload_plan` fits texts and rounds to it. `inputs` gives the texts, `torch_baseline` runs the checkpoint in
eager PyTorch, `measurements/` has a file for each other part. `page` formats a report for a terminal and as HTML.
"""
