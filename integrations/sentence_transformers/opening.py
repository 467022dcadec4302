"""From the arguments of a constructor of sentence-transformers to the arguments of `encort.load`."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from encort.runtime.bundle.manifest import MANIFEST_FILE
from encort.runtime.common.errors import BundleFileMissingError, InputError
from encort.runtime.hub.names import HubName, is_hub_name

_REFUSED = {
    "modules": "a bundle has the modules of the model that was exported",
    "model_kwargs": 'open the bundle with encort.load, for example precision="int8", and give the result in place of '
    "the folder",
    "processor_kwargs": "a bundle has the tokenizer that was exported; set max_seq_length to read fewer tokens",
    "config_kwargs": "a bundle has the settings of the model that was exported",
}
"""Options that change the model, which a bundle cannot follow, and what to do instead."""


def check_options(options: Mapping[str, object]) -> None:
    """Refuse options that would change the model, unless they are empty.

    Raises:
        InputError: An option cannot be followed; the message says what to do.
    """
    for name, what_to_do in _REFUSED.items():
        if options.get(name):
            raise InputError(f"{name} has no effect on a bundle: {what_to_do}; leave {name} out")


def bundle_name(name: object, *, revision: str | None, organization: str) -> str | Path:
    """Return a bundle as `encort.load` takes it: its folder, or its name on the hub.

    Args:
        name: What the caller gave in place of the name of a model.
        revision: Revision of a bundle on the hub.
        organization: Organization of the hub that sentence-transformers adds to a short name.

    Raises:
        InputError: It is None, or a folder with a revision.
        BundleFileMissingError: It is no bundle; the message has the command that makes one.
    """
    if name is None:
        raise InputError("give the folder of a bundle, which `encort export MODEL --output my.bundle` makes")
    if is_hub_name(name):
        hub_name = HubName.parse(str(name))
        return str(hub_name if revision is None else hub_name.at(revision))
    folder = Path(str(name))
    if (folder / MANIFEST_FILE).is_file():
        if revision is not None:
            raise InputError(f"{name} has one revision, that of the checkpoint that was exported; leave revision out")
        return folder
    source = str(name) if folder.exists() or "/" in str(name) else f"{organization}/{name}"
    what = "is a checkpoint, not a bundle" if folder.is_dir() else "is not the folder of a bundle"
    command = shlex.join(["encort", "export", source, "--output", f"{folder.name or 'my'}.bundle"])
    raise BundleFileMissingError(f"{name} {what}; make a bundle, and give its folder: {command}")


def device_names(device: object) -> str | list[str]:
    """Return a device, or several, by the names of `encort.load`: `"auto"`, `"cpu"`, `"cuda:0"`.

    Args:
        device: None, a name, a `torch.device`, or a list of them. Several processes on the CPU are one device.
    """
    if device is None:
        return "auto"
    if isinstance(device, list | tuple):
        names = list(dict.fromkeys(str(device_names(one)) for one in device))
        return names[0] if len(names) == 1 else names
    name = f"cuda:{device}" if isinstance(device, int) else str(device)
    return "cuda:0" if name == "cuda" else name


def merge_prompts(
    defaults: Mapping[str, Any], given: Mapping[str, str] | None, stored: Mapping[str, str]
) -> dict[str, str]:
    """Return the prompts of a model by name. Given ones come before stored ones, and a default of None is filled."""
    prompts = {**defaults, **(given or {})}
    for name, text in stored.items():
        if prompts.get(name) is None:
            prompts[name] = text
    return {name: text or "" for name, text in prompts.items()}
