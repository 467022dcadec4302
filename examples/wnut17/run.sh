#!/usr/bin/env bash
# Fine-tune MiniLM to tag names, export it in fp32 and int8, and tag two texts.
# The output goes to build/wnut17, or to the folder in OUTPUT.
set -euo pipefail
cd "$(dirname "$0")/../.."
model="${MODEL:-$(python examples/minilm.py)}"
output="${OUTPUT:-build/wnut17}"

encort train token-classification --model "$model" --train examples/wnut17/train.conll \
  --validation examples/wnut17/dev.conll --output "$output/checkpoint"
encort export "$output/checkpoint" --output "$output/bundle" --variant fp32 --variant int8 \
  --calibration examples/wnut17/train.conll --evaluation examples/wnut17/dev.conll --max-drop 0.3
encort predict "$output/bundle" "Lewis Hamilton wins in Singapore" "the new iPhone from Apple is out"
