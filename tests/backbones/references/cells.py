"""Networks of cells: DARTS and FairDARTS genotypes, NASNet, PNASNet and AmoebaNet, ENAS, NSGA-Net, RandWire.

Sources beside each function. TensorFlow's SAME padding is taken as the symmetric one of every other network here.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.backbones.references.plain import avg_pool, bn, classify, conv, conv_bn, depthwise, halves, linear, max_pool


def relu_conv_bn(x: Tensor, out: int, k=1, s=1) -> Tensor:
    return conv_bn(F.relu(x), out, k, s)


def sep(x: Tensor, out: int, k: int, s: int) -> Tensor:
    """Twice ReLU, depthwise, pointwise, norm; the stride in the first."""
    for stride in (s, 1):
        x = conv_bn(depthwise(F.relu(x), k, stride), out)
    return x


def darts_op(name: str, x: Tensor, s: int) -> Tensor:
    """cnn/operations.py of quark0/darts."""
    c = x.shape[1]
    kind, _, size = name.rpartition("_")
    k = int(size[0]) if size[0].isdigit() else 0
    if kind == "sep_conv":
        return sep(x, c, k, s)
    if kind == "dil_conv":
        return conv_bn(depthwise(F.relu(x), k, s, dilation=2), c)
    if kind == "max_pool":
        return max_pool(x, k, s)
    if kind == "avg_pool":
        return avg_pool(x, k, s)
    if name == "conv_3x1_1x3":
        # resnet-like pair of GDAS' and SETN's space (xautodl/nas_infer_model/operations.py)
        return conv_bn(conv(F.relu(x), c, (1, 3), (1, s)), c, (3, 1), (s, 1))
    if name == "none":
        return x[:, :, ::s, ::s] * 0
    assert name == "skip_connect", name
    return x if s == 1 else halves(F.relu(x), c)


def darts_inputs(before: Tensor, last: Tensor, c: int, after_reduction: bool) -> list[Tensor]:
    return [halves(F.relu(before), c) if after_reduction else relu_conv_bn(before, c), relu_conv_bn(last, c)]


def genotype_cell(pairs, concat, before: Tensor, last: Tensor, c: int, reduction: bool, after_reduction: bool) -> Tensor:
    """cnn/model.py of quark0/darts: edges in pairs, each pair a node."""
    states = darts_inputs(before, last, c, after_reduction)
    for one, two in zip(pairs[::2], pairs[1::2], strict=True):
        states.append(sum(darts_op(op, states[i], 2 if reduction and i < 2 else 1) for op, i in (one, two)))
    return torch.cat([states[i] for i in concat], 1)


def edges_cell(edges, left_out: bool, before: Tensor, last: Tensor, c: int, reduction: bool, after_reduction: bool) -> Tensor:
    """Any number of edges (operation, node, source) a node. A node without edges is an empty sum, or, as in DCOCell of
    fairdarts/model.py, left out with the edges that leave it; there nodes are concatenated as the genotype first names them."""
    states = dict(enumerate(darts_inputs(before, last, c, after_reduction)))
    named = list(dict.fromkeys(to for _, to, _ in edges))
    for node in named if left_out else range(2, 6):
        taken = [(op, i) for op, to, i in edges if to == node and i in states]
        parts = [darts_op(op, states[i], 2 if reduction and i < 2 else 1) for op, i in taken]
        size = -(-states[0].shape[2] // (2 if reduction else 1))
        states[node] = sum(parts) if parts else torch.zeros_like(states[0][:, :, :size, :size])
    return torch.cat(list(states.values())[2:], 1)


def darts(spec, x: Tensor, cell) -> Tensor:
    c, layers, imagenet = spec["init_channels"], spec["layers"], spec.get("dataset", "cifar10") == "imagenet"
    if imagenet:
        before = conv_bn(F.relu(conv_bn(x, c // 2, 3, 2)), c, 3, 2)
        last = relu_conv_bn(before, c, 3, 2)
    else:
        before = last = conv_bn(x, 3 * c, 3)
    after_reduction = imagenet
    for i in range(layers):
        reduction = i in (layers // 3, 2 * layers // 3)
        c = 2 * c if reduction else c
        before, last = last, cell("reduce" if reduction else "normal", before, last, c, reduction, after_reduction)
        after_reduction = reduction
    return classify(last, spec["num_classes"])


def darts_cell(spec, x: Tensor, row) -> Tensor:
    g = spec["genotype"]
    assert spec["reductions"] == [spec["layers"] // 3, 2 * spec["layers"] // 3]
    return darts(spec, x, lambda kind, *rest: genotype_cell(g[kind], g[f"{kind}_concat"], *rest))


def darts_cell_edges(spec, x: Tensor, row) -> Tensor:
    assert spec["genotype"]["normal_concat"] == spec["genotype"]["reduce_concat"] == [2, 3, 4, 5]
    left_out = spec.get("empty_nodes", "zeros") == "left out"
    return darts(spec, x, lambda kind, *rest: edges_cell(spec["genotype"][kind], left_out, *rest))


def nsga_micro(spec, x: Tensor, row) -> Tensor:
    """models/micro_models.py of ianwhale/nsga-net (PyramidNetworkCIFAR): DARTS' cells, wider by an increment after every cell,
    not at reductions; squeeze-excitation (1/16, linear layers without bias) on a cell's output."""
    c, layers, g = spec["init_channels"], spec["layers"], spec["genotype"]
    before = last = conv_bn(x, 3 * c, 3)
    after_reduction = False
    for i in range(layers):
        reduction = i in (layers // 3, 2 * layers // 3)
        kind = "reduce" if reduction else "normal"
        y = genotype_cell(g[kind], g[f"{kind}_concat"], before, last, c, reduction, after_reduction)
        if spec["se"]:
            width = y.shape[1]
            gate = torch.sigmoid(linear(F.relu(linear(y.mean((2, 3)), width // 16, bias=False)), width, bias=False))
            y = y * gate[:, :, None, None]
        before, last, after_reduction = last, y, reduction
        c += spec["filter_increment"]
    return classify(last, spec["num_classes"])


def nsga_macro(spec, x: Tensor, row) -> Tensor:
    """models/macro_decoder.py (DenseGenomeDecoder): phases of dense nodes (norm, ReLU, 1x1 to 256, norm, ReLU, 3x3 to 64).

    The first convolution is 3x3 without padding. A node that nothing feeds takes the phase's input, and one that feeds nothing
    goes to the output.
    """
    for phase, (genes, (c_in, c_out)) in enumerate(zip(spec["genome"], spec["channels"], strict=True)):
        if phase > 0:
            x = F.max_pool2d(x, 2, 2)
        if c_in != c_out:
            x = conv(x, c_out, 3 if phase == 0 else 1, padding=0)
        nodes = len(genes)
        sources = {1: []} | {i + 2: [j + 1 for j, bit in enumerate(gene) if bit] for i, gene in enumerate(genes[:-1])}
        final = [0] if genes[-1][0] else []
        fed = [i for i in range(1, nodes + 1) if sources[i]]
        feeds = {j for i in fed for j in sources[i]}
        final += [i for i in fed if i not in feeds]
        states = {0: x}
        for i in range(1, nodes + 1):
            if i in fed or i in feeds:
                y = torch.cat([states[j] for j in sources[i] or [0]], 1)
                states[i] = conv(F.relu(bn(conv(F.relu(bn(y)), 256))), 64, 3)
        # the phase's own input comes last
        order = [i for i in final if i] + [0] * (0 in final)
        x = conv_bn(torch.cat([states[i] for i in order], 1), c_out, act="relu")
    return classify(x, spec["num_classes"])


def slim_op(name: str, x: Tensor, c: int, s: int) -> Tensor:
    """nasnet_utils.py of TF-slim and network_utils.py of the TPU AmoebaNet (which has the bottlenecks)."""
    if name.startswith("sep"):
        return sep(x, c, int(name[3:]), s)
    if name == "dsep5":
        # 'dil_2_separable_5x5_2'
        for stride in (s, 1):
            x = conv_bn(depthwise(F.relu(x), 5, stride, dilation=2), c)
        return x
    if name in ("avg", "max", "max2"):
        x = (
            avg_pool(x, 3, s)
            if name == "avg"
            else max_pool(x, 3, s)
            if name == "max"
            else F.max_pool2d(x, 2, s, ceil_mode=True)
        )
        return x if x.shape[1] == c else conv_bn(x, c)
    if name in ("none", "1x1"):
        return relu_conv_bn(x, c, 1, s) if s > 1 or name == "1x1" or x.shape[1] != c else x
    x = relu_conv_bn(x, c // 4)
    if name == "3x3":
        x = relu_conv_bn(x, c // 4, 3, s)
    else:
        assert name == "1x7_7x1"
        x = relu_conv_bn(relu_conv_bn(x, c // 4, (1, 7), (1, s)), c // 4, (7, 1), (s, 1))
    return relu_conv_bn(x, c)


def slim_cell_(part, x: Tensor, previous: Tensor | None, c: int, s: int) -> Tensor:
    """NasNetABaseCell: state 0 is the input, 1 the one before it; what no operation uses is concatenated."""
    if previous is None:
        previous = x
    elif previous.shape[2] != x.shape[2]:
        previous = halves(F.relu(previous), c)
    elif previous.shape[1] != c:
        previous = relu_conv_bn(previous, c)
    states = [relu_conv_bn(x, c), previous]
    ops, indices = part["operations"], part["hiddenstate_indices"]
    for n in range(0, 10, 2):
        pair = [slim_op(ops[j], states[indices[j]], c, s if indices[j] < 2 else 1) for j in (n, n + 1)]
        states.append(pair[0] + pair[1])
    out = []
    for state, used in zip(states, part["used_hiddenstates"], strict=True):
        if not used:
            if state.shape[2] != states[-1].shape[2]:
                state = halves(state, c)
            elif state.shape[1] != c:
                state = conv_bn(state, c)
            out.append(state)
    return torch.cat(out, 1)


def slim_cell(spec, x: Tensor, row) -> Tensor:
    """nasnet.py and pnasnet.py of TF-slim, model_builder.py of the TPU AmoebaNet."""
    c, cells, one_kind = spec["num_conv_filters"], spec["cell"], spec["pnas_style_reduction"]
    normal, reduction = cells["normal"], cells["normal"] if one_kind else cells["reduction"]
    if spec["stem"] == "imagenet":
        x = conv_bn(x, int(32 * spec["stem_multiplier"]), 3, 2, padding=0)
        outputs = [None, x]
        for scale in (1 / 4, 1 / 2):
            x = slim_cell_(reduction, x, outputs[-2], int(c * scale), 2)
            outputs.append(x)
    else:
        x = conv_bn(x, int(c * spec["stem_multiplier"]), 3)
        outputs = [None, x]
    for i in range(spec["num_cells"]):
        reduces = i in spec["reduction_positions"]
        c = 2 * c if reduces else c
        if one_kind:
            x = slim_cell_(normal, x, outputs[-2], c, 2 if reduces else 1)
        else:
            previous = outputs[-2]
            if reduces:
                x = slim_cell_(reduction, x, outputs[-2], c, 2)
                outputs.append(x)
                if not spec["skip_reduction_layer_input"]:
                    previous = outputs[-2]
            x = slim_cell_(normal, x, previous, c, 1)
        outputs.append(x)
    return classify(F.relu(x), spec["num_classes"])


def enas_op(name: str, x: Tensor, c: int, s: int) -> Tensor:
    """_fixed_layer of src/cifar10/micro_child.py: a skip of stride 2 is a factorised reduction without ReLU."""
    if name.startswith("sep_conv"):
        return sep(x, c, int(name[-1]), s)
    if name.endswith("pool_3x3"):
        return avg_pool(x, 3, s) if name.startswith("avg") else max_pool(x, 3, s)
    assert name == "identity"
    return halves(x, c) if s == 2 else x


def enas_micro(spec, x: Tensor, row) -> Tensor:
    """arXiv 1802.03268; src/cifar10/micro_child.py: after sizes are matched the second input has one more 1x1 convolution."""
    c = spec["out_filters"]
    x = conv_bn(x, 3 * c, 3)
    before, last = x, x
    for layer in range(spec["num_layers"] + spec["extra_reduction_layers"]):
        reduces = layer in spec["reduction_positions"]
        c = 2 * c if reduces else c
        arc = spec["reduce_arc"] if reduces else spec["normal_arc"]
        one, two = before, last
        if one.shape[2] != two.shape[2]:
            one = halves(F.relu(one), c)
        elif one.shape[1] != c:
            one = relu_conv_bn(one, c)
        if two.shape[1] != c:
            two = relu_conv_bn(two, c)
        states, used = [one, relu_conv_bn(two, c)], set()
        for n in range(0, len(arc), 4):
            pair = [(arc[n], arc[n + 1]), (arc[n + 2], arc[n + 3])]
            used |= {i for i, _ in pair}
            parts = [enas_op(spec["ops"][op], states[i], c, 2 if reduces and i < 2 else 1) for i, op in pair]
            states.append(parts[0] + parts[1])
        smallest = min(states[i].shape[2] for i in range(len(states)) if i not in used)
        free = [states[i] for i in range(len(states)) if i not in used]
        y = torch.cat([state if state.shape[2] == smallest else halves(state, c) for state in free], 1)
        before, last = last, y
    return classify(F.relu(last), spec["num_classes"], bias=False)


def enas_macro(spec, x: Tensor, row) -> Tensor:
    """_fixed_layer of src/cifar10/general_child.py with whole channels: 1x1, then a full 3x3 (operations 0, 1) or 5x5 (2, 3)
    convolution; then the chosen earlier maps and this one, concatenated, through a 1x1 convolution. A pool halves every map."""
    c, layers = spec["out_filters"], spec["layers"]
    maps = [conv_bn(x, c, 3)]
    for i, (op, *skips) in enumerate(spec["per_layer"]):
        y = relu_conv_bn(relu_conv_bn(maps[-1], c), c, (3, 3, 5, 5)[op])
        if i > 0:
            chosen = [maps[j] for j, bit in enumerate(skips) if bit]
            y = relu_conv_bn(torch.cat([*chosen, y], 1), c)
        maps.append(y)
        if i in (layers // 3 - 1, 2 * (layers // 3) - 1):
            c *= 2
            maps = [halves(m, c) for m in maps]
    return classify(maps[-1], spec.get("num_classes", 10), bias=False)
