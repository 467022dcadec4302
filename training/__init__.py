"""Fine-tuning in PyTorch: labelled data and a pretrained encoder in, a checkpoint folder out.

Read the files in the order of the walk:

1. `settings`: what a user can set. `commands`: `encort train TASK`.
2. `train`: the walk itself, `TrainingRun.run`.
3. `prepare`: reads and checks everything before the training, with `data` (rows to examples) and `pretrained`
   (settings and tokenizer of the encoder).
4. `features`: token ids and padded batches.
5. `fit`: the trainer. `progress`: what it shows on stderr. `resume`: the state of an unfinished training.
   `disk_errors`: failed writes of libraries.
6. `report`: metrics, with the `pictures` of losses and confusions.

`tasks` has one file per task. `multi_head` trains several heads on one encoder by the same walk. `dual_encoder` is the
model of next-sentence prediction that encodes each text once.

The output is a checkpoint in Hugging Face layout with safetensors. `export` sees nothing else of this folder.
"""
