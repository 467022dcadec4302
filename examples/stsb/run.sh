#!/usr/bin/env bash
# Fine-tune MiniLM to score the similarity of two texts, export it in fp32 and int8, and score the development set.
# The output goes to build/stsb, or to the folder in OUTPUT.
set -euo pipefail
cd "$(dirname "$0")/../.."
model="${MODEL:-$(python examples/minilm.py)}"
output="${OUTPUT:-build/stsb}"

encort train text-regression --model "$model" --train examples/stsb/train.csv \
  --validation examples/stsb/dev.csv --output "$output/checkpoint"
encort export "$output/checkpoint" --output "$output/bundle" --variant fp32 --variant int8 \
  --calibration examples/stsb/train.csv --evaluation examples/stsb/dev.csv --max-drop 0.3
encort predict "$output/bundle" --input examples/stsb/dev.csv --output "$output/scores.jsonl"
head -n 2 "$output/scores.jsonl"
