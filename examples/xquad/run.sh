#!/usr/bin/env bash
# Fine-tune MiniLM to answer questions from a context, export it in fp32 and int8, and answer the test questions.
# The output goes to build/xquad, or to the folder in OUTPUT.
set -euo pipefail
cd "$(dirname "$0")/../.."
model="${MODEL:-$(python examples/minilm.py)}"
output="${OUTPUT:-build/xquad}"

encort train question-answering --model "$model" --train examples/xquad/train.json \
  --validation examples/xquad/test.json --output "$output/checkpoint"
encort export "$output/checkpoint" --output "$output/bundle" --variant fp32 --variant int8 \
  --calibration examples/xquad/train.json --evaluation examples/xquad/test.json --max-drop 0.3
encort predict "$output/bundle" --input examples/xquad/test.json --n-best 2 --output "$output/answers.jsonl"
head -n 2 "$output/answers.jsonl"
