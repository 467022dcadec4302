"""Fine-tuning in PyTorch: labelled data and an encoder in, a checkpoint folder out.

The walk of the data, a file a step: `sources` (files, folders, the hub) → `examples` (checked rows) → `features`
(token ids) → `fit` (the trainer) → `report`, held together by `train` with its `settings`; `prepare` checks everything
first, and `unfinished` lets a training that was stopped go on. What a task knows is in `task`: `text_classification`,
`token_classification`, `question_answering`, `next_sentence` (with `two_encoders`), `sentence_embedding`;
`several_heads` trains some of them together. `pretrained` is what training starts from.

The checkpoint, in Hugging Face layout with safetensors, is all that `export` ever sees of this room.
"""
