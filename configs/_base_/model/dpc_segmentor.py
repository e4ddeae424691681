"""MobileNetV2 at output stride 16, a dense prediction cell on its last map, 1x1 logits: the network of DPC's search and the
small one of its paper (arXiv 1809.04184)."""

_base_ = "encoder_decoder.py"

model = dict(
    data_preprocessor=dict(
        size=(769, 769),
        # corners are aligned: one pixel more than a multiple of the stride
        test_cfg=dict(size=(1025, 2049)),
    ),
    backbone=dict(type="search.published", name="MobileNetV2 1.0 @224", output_stride=16, out_indices=(3,)),
    neck=dict(
        type="search.DensePredictionCell",
        # written from the backbone
        in_channels=[320],
        channels=256,
        branches=5,
        norm=dict(eps=1e-5, momentum=3e-4),
    ),
    decode_head=dict(
        type="mmseg.FCNHead",
        # the logits' 1x1 convolution alone
        num_convs=0,
        concat_input=False,
        in_channels=256,
        in_index=-1,
        channels=256,
        dropout_ratio=0.0,
        # read from the data
        num_classes=19,
        align_corners=True,
        loss_decode=dict(type="mmseg.CrossEntropyLoss", avg_non_ignore=True),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)
