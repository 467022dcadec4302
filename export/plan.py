"""Decide which variants an export makes, from its options and its source."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from encort.export.evaluation import Evaluation
from encort.export.graph.architectures import ARCHITECTURES
from encort.export.options import CUDA_PRECISIONS, INT8_KINDS, NATIVE_KINDS, ExportOptions, VariantKind
from encort.export.source.export_source import ExportSource
from encort.runtime.common.errors import CheckpointError, InputError

log = logging.getLogger("encort")


@dataclass(frozen=True, eq=False, kw_only=True)
class Plan:
    """Variants that an export makes, and the labelled data that chooses among them.

    Attributes:
        options: Options of the export.
        kinds: Variants to make.
        evaluation: Labelled data; None if there is none.
    """

    options: ExportOptions
    kinds: Sequence[VariantKind]
    evaluation: Evaluation | None

    @classmethod
    def of(cls, source: ExportSource, options: ExportOptions) -> "Plan":
        """Match the options with the source.

        Raises:
            CheckpointError: The source does not allow a variant that was asked for.
            InputError: Options for int8 or labelled data are of no use for these variants or heads.
            DatasetError: The labelled data cannot be used.
        """
        kinds, evaluation = _kinds(source, options), None
        if set(INT8_KINDS).isdisjoint(kinds) and options.concerns_int8:
            raise InputError("calibration, evaluation and weight bits are for int8 graphs, and none will be made")
        if options.evaluation is not None:
            if len(source.heads) > 1:
                raise InputError("labelled data of one head cannot choose a graph for all; export without --evaluation")
            if source.fills_masks:
                raise InputError("labelled data cannot judge masked words; export without --evaluation")
            evaluation = Evaluation.read(
                Path(options.evaluation),
                next(iter(source.heads), None),
                columns=options.evaluation_columns,
                header=options.evaluation_header,
            )
        return cls(options=options, kinds=kinds, evaluation=evaluation)


def _kinds(source: ExportSource, options: ExportOptions) -> list[VariantKind]:
    """Return the variants that were asked for, or the default ones that the source allows."""
    if source.description is not None:
        kinds = [kind for kind in VariantKind if options.is_wanted(kind)]
        if source.retrieval.expands_unattended and {*CUDA_PRECISIONS, *NATIVE_KINDS} & {*kinds}:
            raise CheckpointError(
                "graphs for CUDA and native graphs have no tokens that others do not attend to, by which this model "
                "expands queries; export the variants fp32, int8 and portable"
            )
        return kinds
    if source.retrieval.projection is not None or source.retrieval.expansion is not None:
        raise CheckpointError(
            f"architecture {source.checkpoints[0].architecture!r} has no authored graph, which token vectors "
            "and sparse embeddings need; "
            f"encort authors: {', '.join(ARCHITECTURES)}"
        )
    checkpoint, authored = source.checkpoints[0], ", ".join(ARCHITECTURES)
    if options.variants is not None and set(options.variants) != {VariantKind.PORTABLE}:
        raise CheckpointError(
            f"architecture {checkpoint.architecture!r} has no authored graph, only the variant {VariantKind.PORTABLE}; "
            f"encort authors: {authored}"
        )
    log.warning(
        "%s: architecture %r has no authored graph, so the bundle has the portable variant only, and no int8, "
        "which is more than twice as fast; encort authors: %s",
        checkpoint.name,
        checkpoint.architecture,
        authored,
    )
    return [VariantKind.PORTABLE]
