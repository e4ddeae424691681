"""SpineNet. arXiv 1912.05027; modeling/architecture/spinenet.py, heads.py and configs/spinenet of tensorflow/tpu (7dc921f)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from tests.backbones.references.plain import ACTIVATIONS, conv_bn, linear, max_pool

# the official tables: (level, kind, parents, whether it is an output), and per size
# (channels of the outputs, scale of filters, alpha of resampling, repeats)
BLOCKS = [
    (2, "bottleneck", (0, 1), False),
    (4, "residual", (0, 1), False),
    (3, "bottleneck", (2, 3), False),
    (4, "bottleneck", (2, 4), False),
    (6, "residual", (3, 5), False),
    (4, "bottleneck", (3, 5), False),
    (5, "residual", (6, 7), False),
    (7, "residual", (6, 8), False),
    (5, "bottleneck", (8, 9), False),
    (5, "bottleneck", (8, 10), False),
    (4, "bottleneck", (5, 10), True),
    (3, "bottleneck", (4, 10), True),
    (5, "bottleneck", (7, 12), True),
    (7, "bottleneck", (5, 14), True),
    (6, "bottleneck", (12, 14), True),
]
FILTERS = {2: 64, 3: 128, 4: 256, 5: 256, 6: 256, 7: 256}
SCALES = {"49": (256, 1.0, 0.5, 1), "96": (256, 1.0, 0.5, 2), "143": (256, 1.0, 1.0, 3), "190": (512, 1.3, 1.0, 4)}


def _block(kind: str, x: Tensor, c: int, act: str, repeats: int) -> Tensor:
    for i in range(repeats):
        out = 4 * c if kind == "bottleneck" else c
        if kind == "bottleneck":
            y = conv_bn(conv_bn(conv_bn(x, c, act=act), c, 3, act=act), out)
        else:
            y = conv_bn(conv_bn(x, c, 3, act=act), c, 3)
        shortcut = conv_bn(x, out) if i == 0 and x.shape[1] != out else x
        x = ACTIVATIONS[act](y + shortcut)
    return x


def _resample(x: Tensor, kind: str, size: int, out: int, alpha: float, act: str) -> Tensor:
    """1x1 to alpha times the width; down by a 3x3 of stride 2 and a max pool, or up to the nearest; 1x1 to `out`."""
    c, width = x.shape[1] // 4 if kind == "bottleneck" else x.shape[1], x.shape[3]
    x = conv_bn(x, int(c * alpha), act=act)
    if width > size:
        x = conv_bn(x, x.shape[1], 3, 2, act)
        if width // size > 2:
            x = max_pool(x, 3 if width / size <= 4 else 5, width // size // 2)
    elif width < size:
        x = F.interpolate(x, scale_factor=size // width)
    return conv_bn(x, out)


def spinenet(spec, x: Tensor, row) -> list[Tensor] | Tensor:
    """The maps of levels 3 to 7 after their 1x1 convolutions; of a classifier the logits of their mean at level 3's size, to
    which they are brought one after the other.

    Activation: swish for the detectors' figures, ReLU for the classifiers' 77.0, 78.2 and 79.0, as the configs' headers say.
    """
    act = "relu" if row["metric_value"] in (77.0, 78.2, 79.0) else "swish"
    width = x.shape[3]
    if "ref" in spec:
        ends, scale, alpha, repeats = SCALES[row["name"].split()[0].split("-")[1]]
        blocks, filters = BLOCKS, FILTERS
    else:
        ends, scale, alpha, repeats = (
            spec[key] for key in ("endpoints_channels", "filter_scale", "resample_alpha", "block_repeats")
        )
        blocks = [(b["level"], b["kind"], b["parents"], b["output"]) for b in spec["blocks"]]
        filters = {int(level): c for level, c in spec["filter_size"].items()}
    filters = {level: int(c * scale) for level, c in filters.items()}
    x = max_pool(conv_bn(x, 64, 7, 2, act), 3, 2)
    maps, kinds = [], []
    for _ in range(2):
        x = _block("bottleneck", x, filters[2], act, repeats)
        maps.append(x)
        kinds.append("bottleneck")
    degree, outputs = [0, 0], {}
    for level, kind, parents, is_output in blocks:
        size, c = -(-width // 2**level), filters[level]
        out = 4 * c if kind == "bottleneck" else c
        y = 0
        for parent in parents:
            y = y + _resample(maps[parent], kinds[parent], size, out, alpha, act)
            degree[parent] += 1
        if is_output:
            for j, other in enumerate(maps):
                if degree[j] == 0 and other.shape[3] == size and other.shape[1] == out:
                    y = y + other
                    degree[j] += 1
        maps.append(_block(kind, ACTIVATIONS[act](y), c, act, repeats))
        kinds.append(kind)
        degree.append(0)
        if is_output:
            outputs[level] = maps[-1]
    levels = [conv_bn(outputs[level], ends, act=act) for level in range(3, 8)]
    if row["task"] != "classification":
        return levels
    total = levels[-1]
    for y in levels[-2::-1]:
        total = F.interpolate(total, size=y.shape[2:]) + y
    return linear((total / 5).mean((2, 3)), spec["num_classes"])
