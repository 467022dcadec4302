"""Fine-tuning in PyTorch: labelled data and an encoder in, a checkpoint folder out.

In reading order: `settings` → `data` (tables to checked datasets) → `text_classification` (the training).
The checkpoint, in Hugging Face layout with safetensors, is all that `export` ever sees of this room.
"""
