"""One small backbone of each family, as configs of mmdet and mmseg name it.

A new family is an entry: its name and the config, mostly of a small specification in its schema.
"""

from pathlib import Path

from backbones.spec import model_config

STRIDES = (4, 8, 16, 32)
ARCHS = Path(__file__).resolve().parents[2] / "backbones" / "archs"


def read(spec: dict, out_indices: tuple[int, ...] = (1, 2, 3, 4)) -> dict:
    """The backbone that a specification describes, with these levels."""
    return {**model_config(spec)["backbone"], "out_indices": out_indices}


def mbconv(**spec) -> dict:
    """A table of inverted residuals: [repeat, kernel, stride, expansion, in, out, squeeze-excitation]."""
    return read(dict(schema="mbconv", stem=16, head=32, **spec))


# levels of strides 4, 8, 16 and 32
FAMILIES: dict[str, dict] = {
    "darts": dict(
        type="search.CellNet",
        stem="imagenet",
        channels=4,
        layers=4,
        arch=str(ARCHS / "darts_v2.json"),
        out_indices=(0, 1, 2, 3),
    ),
    "auto_deeplab": dict(
        type="search.AutoDeepLab",
        filters=4,
        layers=4,
        blocks=2,
        layout="published",
        arch={
            "path": (4, 8, 16, 32),
            "cell/n2/inputs": (0, 1),
            "cell/n2<-0": "atrous_conv_3x3",
            "cell/n2<-1": "sep_conv_5x5",
            "cell/n3/inputs": (1, 2),
            "cell/n3<-1": "skip_connect",
            "cell/n3<-2": "max_pool_3x3",
        },
        out_indices=(0, 1, 2, 3),
    ),
    "mobilenet_v1": read(dict(schema="mobilenet_v1", width_mult=0.25)),
    "mobilenet_v2": mbconv(
        blocks=[
            [1, 3, 1, 1, 16, 8, 0],
            [2, 3, 2, 6, 8, 16, 0],
            [2, 3, 2, 6, 16, 24, 0],
            [1, 3, 2, 6, 24, 32, 0],
            [1, 3, 2, 6, 32, 40, 0],
        ]
    ),
    "mobilenet_v3": read(
        dict(
            schema="mobilenet_v3",
            width_mult=0.5,
            stem=16,
            blocks=[[1, 16, 3, 2, 1], [4.5, 24, 3, 2, 0], [4, 40, 5, 2, 1], [6, 40, 5, 1, 1], [6, 96, 5, 2, 1]],
            last_conv=576,
            head_after_pool=1024,
        )
    ),
    "mnasnet": mbconv(
        blocks=[
            [1, 3, 1, 1, 16, 8, 0],
            [1, 3, 2, 3, 8, 16, 0],
            [2, 5, 2, 3, 16, 24, 0.25],
            [1, 3, 2, 6, 24, 32, 0],
            [1, 5, 2, 6, 32, 40, 0.25],
        ]
    ),
    "efficientnet": mbconv(
        blocks=[
            [1, 3, 1, 1, 16, 8, 0.25],
            [2, 3, 2, 6, 8, 16, 0.25],
            [2, 5, 2, 6, 16, 24, 0.25],
            [2, 3, 2, 6, 24, 32, 0.25],
            [1, 5, 2, 6, 32, 40, 0.25],
        ],
        scaling="EfficientNet",
    ),
    "efficientnet_v2": mbconv(
        blocks=[
            [1, 3, 1, 1, 16, 8, 0],
            [2, 3, 2, 4, 8, 16, 0],
            [2, 3, 2, 4, 16, 24, 0],
            [1, 3, 2, 4, 24, 32, 0.25],
            [1, 3, 2, 6, 32, 40, 0.25],
        ],
        fused_stages=[0, 1, 2],
    ),
    "proxyless_ofa": read(
        dict(
            schema="hanlab",
            stem=16,
            blocks=[
                [3, 1, 1, 16, 16, 16, 0, "relu", 1],
                [3, 2, 3, 48, 16, 24, 0, "relu", 0],
                [3, 1, 3, 72, 24, 24, 0, "relu", 1],
                [5, 2, 4, 96, 24, 40, 1, "relu", 0],
                [5, 1, 3, 120, 40, 40, 1, "relu", 1],
                [5, 2, 3, 120, 40, 48, 0, "h_swish", 0],
                [3, 1, 3, 144, 48, 48, 0, "h_swish", 1],
                [3, 2, 3, 144, 48, 56, 1, "h_swish", 0],
                [7, 1, 4, 224, 56, 56, 1, "h_swish", 1],
            ],
            final_expand=96,
            feature_mix=128,
            head_after_pool=True,
        )
    ),
    "fairnas": read(
        dict(schema="fairnas", blocks=[[3, 32, 7, 2], [3, 32, 3, 1], [3, 40, 7, 2], [6, 80, 3, 2], [6, 96, 3, 2]], last=128)
    ),
    "fbnet": read(
        dict(
            schema="fbnet",
            stem=16,
            blocks=[None, [3, 24, 3, 2, 1], [1, 24, 3, 1, 2], [6, 32, 5, 2, 1], [3, 64, 5, 2, 1], [6, 96, 3, 2, 1]],
            last_conv=128,
        )
    ),
    "atomnas": read(
        dict(
            schema="atomnas",
            stem=16,
            blocks=[
                [16, 1, 1, [3], [16], False],
                [24, 1, 2, [3, 5, 7], [16, 12, 9], True],
                [32, 1, 2, [3, 5, 7], [26, 19, 20], True],
                [40, 1, 2, [3, 5], [30, 30], True],
                [48, 1, 2, [3, 5, 7], [31, 34, 42], True],
            ],
            last=128,
        )
    ),
    "autonl": read(
        dict(
            schema="autonl",
            stem=16,
            blocks=[
                [1, 16, 1, 1, [3], 0.0, 1, 0.0],
                [3, 24, 1, 2, [3], 0.25, 1, 0.0],
                [3, 40, 2, 2, [5], 0.25, 2, 0.0],
                [6, 48, 1, 2, [5], 0.25, 1, 0.25],
                [3, 64, 1, 2, [3], 0.0, 1, 0.5],
            ],
            last=128,
        )
    ),
    "densenas": read(
        dict(
            schema="densenas",
            stem=16,
            blocks=[
                [[16, 16], [3, 1], [], 1],
                [[16, 24], [3, 6], [], 2],
                [[24, 48], [7, 6], [[3, 3]], 2],
                [[48, 64], [5, 6], [[3, 6]], 2],
                [[64, 96], [3, 6], [], 2],
            ],
            last=128,
        )
    ),
    "shufflenet_v1": read(dict(schema="shufflenet_v1", groups=2, channels=[8, 48, 96, 192], repeats=[2, 2, 2]), (0, 1, 2, 3)),
    "shufflenet_v2": read(dict(schema="shufflenet_v2", stem=8, channels=[24, 48, 96, 128], repeats=[2, 2, 2]), (0, 1, 2, 3)),
    "spos": read(
        dict(
            schema="shufflenet_oneshot",
            channels=[16, 32, 48, 64, 96, 128],
            repeats=[1, 2, 1, 1],
            arch=[0, 3, 1, 2, 3],
        ),
        (1, 2, 3, 4),
    ),
    "resnet": read({"schema": "resnet50_v1.5", "width_mult": 0.125}, (0, 1, 2, 3)),
    "autoslim": read(dict(schema="autoslim_mobilenet_v1", channels=[8, 8, 16, 16, 24, 24, 32, 32, 40, 32, 40, 32, 48, 48, 10])),
    "fair_darts": read(
        dict(
            schema="darts_cell_edges",
            genotype=dict(
                normal=[["sep_conv_3x3", 2, 0], ["skip_connect", 2, 1], ["max_pool_3x3", 3, 0], ["dil_conv_5x5", 3, 2]],
                normal_concat=[2, 3],
                reduce=[["max_pool_3x3", 2, 0], ["avg_pool_3x3", 2, 1], ["skip_connect", 3, 1], ["sep_conv_5x5", 3, 2]],
                reduce_concat=[2, 3],
            ),
            dataset="imagenet",
            init_channels=8,
            layers=4,
        ),
        (0, 1, 2, 3),
    ),
    "nasnet": read(
        dict(
            schema="slim_cell",
            cell=dict(
                normal=dict(
                    operations=["sep5", "sep3", "sep5", "sep3", "avg", "none", "avg", "avg", "sep3", "none"],
                    used_hiddenstates=[1, 0, 0, 0, 0, 0, 0],
                    hiddenstate_indices=[0, 1, 1, 1, 0, 1, 1, 1, 0, 0],
                ),
                reduction=dict(
                    operations=["sep5", "sep7", "max", "sep7", "avg", "sep5", "none", "avg", "sep3", "max"],
                    used_hiddenstates=[1, 1, 1, 0, 0, 0, 0],
                    hiddenstate_indices=[0, 1, 0, 1, 0, 1, 3, 2, 2, 0],
                ),
            ),
            pnas_style_reduction=False,
            num_conv_filters=16,
            num_cells=4,
            reduction_positions=[1, 2],
            stem="imagenet",
            stem_multiplier=0.25,
            skip_reduction_layer_input=0,
            filter_scaling_rate=2,
        )
    ),
    "randwire": read(dict(schema="randwire", generator="WS", N=8, K=4, P=0.75, C=16)),
    "spinenet": dict(type="search.SpineNet", filter_scale=0.25, endpoints_channels=16, out_indices=(0, 1, 2, 3)),
    "fna": read(
        dict(
            schema="mbv2_ops",
            stem=16,
            stages=[
                [8, [[3, 1]], 1],
                [16, [[3, 6], [3, 3]], 2],
                [24, [[7, 6]], 2],
                [32, [[5, 3]], 2],
                [40, [[3, 6]], 1],
                [48, [[7, 3]], 2],
                [56, [[3, 6]], 1],
            ],
            ch=16,
        )
    ),
}

# networks for small images or for maps of one large resolution: four levels at most, of strides below 32
FINE_FAMILIES: dict[str, dict] = {
    "squeezenas": read(
        dict(
            schema="squeezenas",
            genotype=[
                "inverse_residual_k3_e1_g2",
                "residual_skipish",
                "inverse_residual_k5_e3_g1",
                "inverse_residual_k3_e6_g1_d2",
                "inverse_residual_k3_e1_g2_d2",
            ],
            macro=dict(
                stem=8,
                stages=[[8, 1, 2], [16, 1, 2], [24, 1, 2], [32, 1, 1], [40, 1, 1]],
                low_level_block=1,
                decoder_channels=16,
                last_conv=64,
                lraspp=True,
            ),
            num_classes=19,
        )
    ),
    "enas_micro": read(
        dict(
            schema="enas_micro",
            normal_arc=[0, 2, 0, 0, 0, 4, 0, 1, 0, 4, 1, 1, 1, 0, 0, 1, 0, 2, 1, 1],
            reduce_arc=[1, 0, 1, 0, 0, 3, 0, 2, 1, 1, 3, 1, 1, 0, 0, 4, 0, 3, 1, 1],
            ops=["sep_conv_3x3", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3", "identity"],
            out_filters=4,
            num_layers=2,
            extra_reduction_layers=2,
            reduction_positions=[1, 2],
        ),
        (0, 1, 2, 3),
    ),
    "enas_macro": read(
        dict(schema="enas_macro", layers=4, per_layer=[[0], [3, 0], [1, 1, 1], [2, 1, 0, 1]], out_filters=8), (0, 1, 2, 3)
    ),
    "nsga_macro": read(
        dict(
            schema="nsga_macro",
            genome=[[[1], [0, 1], [0]], [[1], [1, 0], [1]], [[0], [1, 1], [0]]],
            channels=[[3, 8], [8, 8], [8, 16]],
            decoder="dense",
        ),
        (0, 1, 2),
    ),
    "nsga_micro": read(
        dict(
            schema="nsga_micro",
            genotype=dict(
                normal=[["skip_connect", 0], ["max_pool_3x3", 0], ["dil_conv_5x5", 1], ["sep_conv_3x3", 2]],
                normal_concat=[2, 3],
                reduce=[["avg_pool_3x3", 0], ["sep_conv_3x3", 1], ["dil_conv_3x3", 1], ["max_pool_3x3", 0]],
                reduce_concat=[2, 3],
            ),
            init_channels=8,
            filter_increment=2,
            se=True,
            layers=3,
        ),
        (0, 1, 2, 3),
    ),
}
