"""Fine-tuning in PyTorch: labelled data and an encoder in, a checkpoint folder out.

The walk of the data, a file a step: `sources` (files, folders, the hub) → `examples` (rows checked by `cells`, and
`problems` told at once) → `features` (token ids) → `fit` (the trainer) → `report`, held together by `train` with its
`settings`; `prepare` does all that can be done before anything is trained, from a `pretrained` encoder, and
`unfinished` lets a training that was stopped go on.

What a task knows is in `task`: `text_classification`, `token_classification`, `question_answering`, `next_sentence`
(with `two_encoders`), `sentence_embedding`; `multi_head` trains some of them together.

The checkpoint, in Hugging Face layout with safetensors, is all that `export` ever sees of this room.
"""
