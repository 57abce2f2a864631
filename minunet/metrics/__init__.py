"""Scores: ISBI 2012 membranes, semantic segmentation, contours, instances. Pure functions of arrays."""

from minunet.metrics.contours import boundary_f1
from minunet.metrics.instances import seg_measure
from minunet.metrics.isbi import (
    Score,
    isbi_scores,
    pixel_disagreement,
    pixel_error,
    rand_error,
    thresholds,
    v_info,
    v_rand,
    warping_error,
    warping_error_all,
)
from minunet.metrics.segments import label_cells
from minunet.metrics.semantic import Scores, confusion_matrix, scores
from minunet.metrics.thinning import thin_borders
from minunet.metrics.warping import Warped, warp

__all__ = [
    "Score",
    "Scores",
    "Warped",
    "boundary_f1",
    "confusion_matrix",
    "isbi_scores",
    "label_cells",
    "pixel_disagreement",
    "pixel_error",
    "rand_error",
    "scores",
    "seg_measure",
    "thin_borders",
    "thresholds",
    "v_info",
    "v_rand",
    "warp",
    "warping_error",
    "warping_error_all",
]
