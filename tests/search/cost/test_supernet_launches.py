"""Launches of the searches' supernets, as README's table of the supernet step has them, counted dry in the interpreter."""

import pytest
import torch

from search.cost.launches import count_launches
from search.engine.peer_step import PEERS, our_variant
from tests.devices import DEVICE

pytest.importorskip("triton")


def launches(peer: str, channels: int, layers: int, plan: str, image: int) -> int:
    """Of one phase, forward and backward; how many and how large the images are makes no difference."""
    torch.manual_seed(0)
    variant = our_variant(PEERS[peer], channels, layers, PEERS[peer].partial, plan, "fast", torch.device(DEVICE))
    batch = torch.randn(2, 3, image, image, device=DEVICE), torch.randint(10, (2,), device=DEVICE)
    return count_launches(lambda: variant.phase(*batch), dry=True).total


@pytest.mark.parametrize("peer", ["pc_darts", "darts"])
def test_the_triton_plan_launches_an_eighth_of_the_reference(peer):
    reference, triton = (launches(peer, 16, 8, plan, 16) for plan in ("reference", "triton"))
    assert 8 * triton <= reference


@pytest.mark.slow
def test_so_it_does_on_the_trellis():
    pytest.importorskip("mmseg")
    import tasks.segmentation  # noqa: F401 - registers the head

    reference, triton = (launches("auto_deeplab", 8, 12, plan, 64) for plan in ("reference", "triton"))
    assert 8 * triton <= reference
