"""Chains whose late stages keep the resolution and dilate their convolutions."""

import pytest
import torch

from backbones import ChainNet
from backbones.chain_net import dilated
from backbones.published import published
from search.supernet import record

NAME = "MobileNetV2 0.35 @96"


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("size", [(96, 64), (65, 97)])
def test_every_second_pixel_is_that_of_the_strided_network(output_stride, size):
    """Convolutions at a dilated map's even places see even places only: they compute what the strided network does."""
    torch.manual_seed(0)
    strided = published(NAME, out_indices=(4,)).double().eval()
    last = {8: 2, 16: 3}[output_stride]
    fine = published(NAME, output_stride=output_stride, out_indices=(1, last)).double().eval()
    fine.load_state_dict(strided.state_dict())
    assert fine.out_strides == (4, output_stride)
    x = torch.randn(1, 3, *size, dtype=torch.float64)
    step = 32 // output_stride
    with torch.no_grad():
        expected, found = strided(x)[0], fine(x)[-1]
    assert found.shape[2] == -(-size[0] // output_stride)
    assert (found[..., ::step, ::step] - expected).abs().max() <= 1e-10 * expected.abs().max()


def test_blocks_after_a_lost_stride_are_dilated():
    # TF-slim's MobileNetV2 at output stride 16: the 17 depthwise convolutions of the blocks
    model = published(NAME, output_stride=16, out_indices=(3,))
    rates = [m.dilation[0] for m in model.modules() if isinstance(m, torch.nn.Conv2d) and m.groups > 1]
    assert rates == [1] * 14 + [2, 2, 2]


def test_choices_stay():
    ops = {"k3": dict(type="mbconv", kernel=3), "k5": dict(type="mbconv", kernel=5), "skip": dict(type="skip")}
    stages = [dict(channels=c, stride=2, depth=2, ops=ops) for c in (8, 12, 16)]
    spaces = [record(lambda o=o: ChainNet(dict(channels=4), stages, output_stride=o)).space for o in (None, 8)]
    assert spaces[0] == spaces[1]
    last = dilated(stages, 2, 8)[-1]
    assert last["stride"] == 1 and last["first"]["k5"] == ops["k5"] and last["ops"]["k5"] == {**ops["k5"], "dilation": 2}
    assert last["ops"]["skip"] == ops["skip"]


def test_an_output_stride_that_cannot_be():
    with pytest.raises(ValueError, match="output_stride=12, but the stages' strides lead to 8"):
        published(NAME, output_stride=12)
    with pytest.raises(ValueError, match="output_stride=64, but the stages' strides lead to 32"):
        published(NAME, output_stride=64)
    with pytest.raises(ValueError, match=r"'output_stride' is no setting of search\.SpineNet"):
        published("SpineNet-49 classification", output_stride=16)
