"""Packing loses nothing and can be undone."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from encort.runtime.cuda.packing import Packing


@given(st.lists(st.integers(1, 12), min_size=1, max_size=12))
def test_packing_keeps_every_token_and_can_be_undone(lengths: list[int]) -> None:
    longest = max(lengths)
    mask = np.arange(longest) < np.array(lengths)[:, None]
    ids = np.arange(1, mask.size + 1).reshape(mask.shape)
    packed = Packing(mask).pack({"input_ids": ids, "token_type_ids": 0 * ids, "attention_mask": mask * 1})
    assert packed["input_ids"].tolist() == ids[mask].tolist()
    assert packed["position_ids"].tolist() == [position for length in lengths for position in range(length)]
    assert packed["cu_seqlens"].tolist() == np.cumsum([0, *lengths]).tolist()
    width = packed["token_offset"].shape[1]
    assert longest <= width < longest + 8
    assert width % 8 == 0
    offsets = packed["token_offset"].ravel()
    assert sorted(offsets.tolist()) == list(range(len(lengths) * width))
    rows, columns = np.divmod(offsets[: len(packed["input_ids"])], width)
    assert ids[rows, columns].tolist() == packed["input_ids"].tolist()
    assert (packed["token_offset"].dtype, packed["cu_seqlens"].dtype) == (np.int32, np.int32)
    assert "attention_mask" not in packed
    unpacked = Packing(mask).unpack(packed["input_ids"].astype(np.float32))
    assert unpacked.tolist() == np.where(mask, ids, 0).tolist()
