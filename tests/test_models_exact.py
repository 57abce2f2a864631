"""Every network of the family at its published size: parameters, statistics, outputs, work. No weight is allocated."""

from __future__ import annotations

import pytest

from minunet import backends, models
from minunet.backends.shapes import ShapeArray
from minunet.contract import ROWS
from minunet.models.variants import VARIANTS, Variant
from minunet.tensor import Tensor, no_grad

MULTIPLIES = {name for name, row in ROWS.items() if row.stem in ("conv", "matmul") and name != "channel_sum"}


def image(variant: Variant, n: int = 1) -> Tensor:
    return Tensor(ShapeArray((n, *variant.image)))


@pytest.mark.parametrize("variant", VARIANTS, ids=[v.title for v in VARIANTS])
def test_parameters_and_outputs_of_the_paper(variant):
    with models.shapes_only():
        model = models.build(variant.name, **variant.arguments)
        parameters = model.parameters()
        assert sum(p.data.size for p in parameters if p.requires_grad) == variant.parameters
        assert sum(p.data.size for p in parameters if not p.requires_grad) == variant.frozen
        statistics = [b for name, b in model.named_buffers() if name.endswith(("running_mean", "running_var"))]
        assert sum(b.size for b in statistics) == variant.statistics
        outputs = model(image(variant, 2))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        assert len(outputs) == len(model.outputs)
        assert outputs[0].shape == (2, *variant.logits)


@pytest.mark.parametrize("variant", VARIANTS, ids=[v.title for v in VARIANTS])
def test_work_and_size_in_evaluation(variant):
    with models.shapes_only(), no_grad(), backends.count() as work:
        model = models.build(variant.name, **variant.arguments).eval()
        y = model(image(variant))
    assert y.shape == (1, *model.output_size(*variant.image[:2]), variant.logits[2])
    gmac = sum(flops for name, (_, flops, _) in work.by_kernel.items() if name in MULTIPLIES) / 2e9
    assert abs(gmac - variant.gmac) <= 0.0051  # published with two digits


def test_a_large_network_takes_no_memory():
    import tracemalloc

    tracemalloc.start()
    with models.shapes_only():
        models.build("unet", width=4096)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000  # the weights would be 500 GB
    tracemalloc.stop()


def test_shapes_have_no_numbers():
    with models.shapes_only():
        model = models.build("unet", width=2)
        with pytest.raises(TypeError, match="no numbers"):
            model.parameters()[0].numpy()
    assert "shapes" not in backends.available()
