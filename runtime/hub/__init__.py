"""Bundles of the Hugging Face hub, behind the extra `hub`. Folders are opened without it, and without the network.

Reading order:

1. `names`: names such as `hf://org/name@revision`.
2. `client`: the errors of huggingface_hub as errors of encort.
3. `download`: opens a folder, or a bundle of the hub.
4. `card`: the page of a bundle on the hub.
5. `push`: uploads a bundle.
"""
