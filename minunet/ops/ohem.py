"""Cross-entropy over the hard pixels (online hard example mining). Kernels: pixel_cross_entropy, and those of loss."""

from __future__ import annotations

from math import log
from typing import Any

import numpy as np

from minunet.ops.loss import placed_labels, softmax_cross_entropy
from minunet.ops.shared import Tensor, as_tensor, call


def ohem_cross_entropy(
    logits: Tensor,
    target: Any,
    threshold: float = 0.7,
    min_kept: int = 0,
    class_weight: Any = None,
    ignore_index: int = 255,
) -> Tensor:
    """E = sum_{p kept} class_weight[target_p] l_p / (number of pixels kept),  l_p = -log softmax(logits_p)[target_p]

    logits : (N, H, W, K)     target : integers (N, H, W) in 0..K-1, or ignore_index     class_weight : (K,) or None
    threshold : a probability in (0, 1]. Kept is each pixel whose true class has no more than that
    min_kept : >= 0. Where fewer are kept, the bar is the loss of the min_kept-th hardest pixel of the batch instead

    Ties are kept: all pixels whose loss equals the bar, so there may be more than min_kept; where fewer than min_kept
    are labelled, all of those. Class weights do not take part in the choice, and the divisor is a count: PyTorch's
    weighted mean would divide by the sum of the kept pixels' class weights. The choice is a constant to the gradient.
    Returns a scalar tensor; 0 where nothing is kept. Source: Shrivastava et al. 2016 (arXiv 1604.03540) for the idea;
    threshold and least number as in BiSeNet (arXiv 1808.00897) and its released code. On a device all losses are sorted
    where min_kept asks for a bar, and nothing is read back.
    Raises ValueError for threshold or min_kept out of range and for what `softmax_cross_entropy` refuses.
    """
    logits = as_tensor(logits)
    if not 0 < threshold <= 1:
        raise ValueError(f"ohem_cross_entropy: threshold is {threshold}; it is a probability, above 0 and at most 1")
    if min_kept < 0:
        raise ValueError(f"ohem_cross_entropy: min_kept is {min_kept}; it must be at least 0")
    target = placed_labels(target, logits, ignore_index)
    loss = call("pixel_cross_entropy", logits.data, target, ignore_index=ignore_index)
    easy = _easy(loss, -log(threshold), min_kept)
    chosen = target + (ignore_index - target) * easy  # ignored, so "mean" divides by the pixels kept
    return softmax_cross_entropy(logits, chosen, class_weight=class_weight, ignore_index=ignore_index)


def _easy(loss: Any, bar: float, min_kept: int) -> Any:
    """Which pixels are left out: below `bar`, and below the min_kept-th largest loss.

    loss : (N, H, W), -1 on ignored pixels, so that the bar leaves out no labelled pixel where those are fewer than
           min_kept. A NaN is not easy: it is kept, and shows.
    """
    easy = loss < bar
    kept = min(min_kept, loss.size)
    if kept == 0 or (isinstance(loss, np.ndarray) and loss.size - np.count_nonzero(easy) >= kept):
        return easy  # so many reach the bar; a device is not asked for their number, as that would wait for it
    ordered = loss.reshape(-1).copy()
    ordered.partition(ordered.size - kept)  # O(n) on the host; CuPy sorts, and reads nothing back
    return easy & (loss < ordered[ordered.size - kept])
