"""Encoders in int8.

In reading order:
1. `quantization`: turns linear layers into int8, given the range of their input.
2. `calibration`: observes these ranges on calibration texts, and simulates quantized layers in eager PyTorch.
3. `model`: the quantized encoder; sensitive layers stay in float32.
4. `candidates` and `search`: the fastest quantized encoder that loses little on labelled data.
"""
