#!/usr/bin/env bash
# Train a dual encoder on five pairs until it predicts their labels, export it, and label the pairs.
# The output goes to build/next_sentence, or to the folder in OUTPUT.
set -euo pipefail
cd "$(dirname "$0")/../.."
output="${OUTPUT:-build/next_sentence}"

encort train dual-encoder --model examples/kcbert --from-scratch \
  --train examples/next_sentence/pairs.csv --validation examples/next_sentence/pairs.csv --output "$output/checkpoint" \
  --epochs 30 --save-steps 30 --batch-size 5 --learning-rate 1e-5 --schedule constant_with_warmup \
  --warmup-ratio 0 --max-length 128
encort export "$output/checkpoint" --output "$output/bundle" --variant fp32
encort predict "$output/bundle" --input examples/next_sentence/pairs.csv
