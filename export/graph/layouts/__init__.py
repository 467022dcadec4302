"""Attention layouts: ways to lay out the tokens of several texts in one graph.

Most nodes of an encoder work on each token by itself, so they are the same in every layout. These modules hold the
nodes that differ: the inputs that describe the layout, positions, attention, and pooling.

In reading order: `base`, `nodes`, `local`, `equal_length`, `padded`, `ragged`, `packed`.
"""

from encort.export.graph.layouts.base import AttentionLayout
from encort.export.graph.layouts.equal_length import EqualLength
from encort.export.graph.layouts.packed import Packed
from encort.export.graph.layouts.padded import Expanded, Padded
from encort.export.graph.layouts.ragged import Ragged
from encort.runtime.bundle.manifest import Layout

__all__ = ["ATTENTION_LAYOUTS", "AttentionLayout"]

ATTENTION_LAYOUTS: dict[Layout, type[AttentionLayout]] = {
    Layout.EQUAL_LENGTH: EqualLength,
    Layout.RAGGED: Ragged,
    Layout.PACKED: Packed,
    Layout.PADDED: Padded,
    Layout.EXPANDED: Expanded,
}
"""Layouts of authored graphs."""
