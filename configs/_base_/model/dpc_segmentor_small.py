"""A segmentor in which DPC's space can be searched on a CPU: a shallow MobileNetV2 of output stride 8, branches of 32 channels.

Maps of a few dozen pixels can't tell rates above 9 or grids above 4 apart, so the 81 operations are 26. The head reads the
cell's output beside the map of stride 4.
"""

_base_ = "dpc_segmentor.py"

model = dict(
    data_preprocessor=dict(size=(96, 96), test_cfg=None),
    backbone=dict(
        _delete_=True,
        type="search.published",
        # [repeat, kernel, stride, expand, in, out, squeeze-excitation]
        spec=dict(
            schema="mbconv",
            stem=16,
            blocks=[
                [1, 3, 1, 1, 16, 16, 0],
                [2, 3, 2, 4, 16, 24, 0],
                [2, 3, 2, 4, 24, 40, 0],
                [2, 3, 1, 4, 40, 64, 0],
            ],
            head=64,
            activation="relu",
        ),
        out_indices=(1, 2),
    ),
    neck=dict(in_channels=[24, 64], channels=32, rates=(1, 3, 6, 9), grids=(1, 2, 4), norm=None),
    decode_head=dict(
        num_convs=1,
        in_channels=[24, 32],
        in_index=[0, 1],
        input_transform="resize_concat",
        channels=48,
        norm_cfg=dict(type="BN"),
        align_corners=False,
    ),
)
