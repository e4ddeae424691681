"""Auto-DeepLab's supernet (arXiv 1901.02985, section 4.2.1): L = 12 layers, B = 5 blocks of F = 8 filters, a pyramid at each
stride."""

model = dict(
    type="mmseg.EncoderDecoder",
    data_preprocessor=dict(
        type="mmseg.SegDataPreProcessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        size=(321, 321),
        pad_val=0,
        seg_pad_val=255,
    ),
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
