#!/usr/bin/env bash
# Train a small Korean BERT on film reviews, export it in fp32 and int8, and classify two reviews.
# The output goes to build/nsmc, or to the folder in OUTPUT.
set -euo pipefail
cd "$(dirname "$0")/../.."
output="${OUTPUT:-build/nsmc}"

encort train text-classification --model examples/kcbert --from-scratch \
  --set num_hidden_layers=2 --set hidden_size=192 --set num_attention_heads=4 --set intermediate_size=768 \
  --train examples/nsmc/train.tsv --validation examples/nsmc/dev.tsv --output "$output/checkpoint" \
  --epochs 3 --learning-rate 1e-3 --dropout 0.2 --max-length 64
encort export "$output/checkpoint" --output "$output/bundle" --variant fp32 --variant int8 \
  --calibration examples/nsmc/train.tsv --evaluation examples/nsmc/dev.tsv --max-drop 0.3
encort predict "$output/bundle" "정말 재미있는 영화였어요" "돈이 아깝다"
