"""A searchable classification backbone as a segmentor's: cells at strides 8 and 16 under mmseg's FCNHead.

The head reads the stem (stride 4) and both stages, brought to stride 4.
"""

_base_ = "encoder_decoder.py"

model = dict(
    data_preprocessor=dict(size=(96, 96)),
    backbone=dict(type="search.CellNet", channels=16, layers=4, stem="imagenet", reductions=(2,), out_indices=(0, 1, 2)),
    decode_head=dict(
        type="mmseg.FCNHead",
        # written from the backbone
        in_channels=[16, 64, 128],
        in_index=[0, 1, 2],
        input_transform="resize_concat",
        channels=64,
        num_convs=2,
        concat_input=False,
        dropout_ratio=0.0,
        # read from the data
        num_classes=19,
        norm_cfg=dict(type="BN"),
        loss_decode=dict(type="mmseg.CrossEntropyLoss", avg_non_ignore=True),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)
