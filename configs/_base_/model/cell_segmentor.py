"""A searchable classification backbone as a segmentor's: cells at strides 8 and 16 under mmseg's FCNHead.

The head reads the stem (stride 4) and both stages, brought to stride 4.
"""

model = dict(
    type="mmseg.EncoderDecoder",
    data_preprocessor=dict(
        type="mmseg.SegDataPreProcessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        size=(96, 96),
        pad_val=0,
        seg_pad_val=255,
    ),
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
