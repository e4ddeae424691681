"""Auto-DeepLab's supernet (arXiv 1901.02985, section 4.2.1): L = 12 layers, B = 5 blocks of F = 8 filters, a pyramid at each
stride."""

_base_ = "encoder_decoder.py"

model = dict(
    data_preprocessor=dict(size=(321, 321)),
    backbone=dict(type="search.AutoDeepLab", layers=12, blocks=5, filters=8, affine=False, plan="auto"),
    decode_head=dict(
        type="search.AutoDeepLabSearchHead",
        # written from the backbone
        in_channels=[40, 80, 160, 320],
        in_index=[0, 1, 2, 3],
        strides=[4, 8, 16, 32],
        # read from the data
        num_classes=19,
        norm_cfg=dict(type="BN"),
        align_corners=True,
        loss_decode=dict(type="mmseg.CrossEntropyLoss", avg_non_ignore=True),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)
