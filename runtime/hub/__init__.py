"""Bundles of the Hugging Face hub (extra `hub`) and of object stores (`store`). Folders need neither, and no network.

Reading order:

1. `names`: names such as `hf://org/name@revision`.
2. `client`: the errors of huggingface_hub as errors of encort.
3. `store`: fetches a bundle of an object store.
4. `download`: opens a folder, a bundle of a store, or one of the hub.
5. `card`: the page of a bundle on the hub.
6. `push`: uploads a bundle.
"""
