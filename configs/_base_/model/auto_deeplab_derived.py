"""A network that Auto-DeepLab's search derives, as the authors published theirs: F = 20, DeepLabV3+'s decoder."""

_base_ = "encoder_decoder.py"

model = dict(
    data_preprocessor=dict(
        size=(769, 769),
        # corners are aligned: one pixel more than a multiple of the stride
        test_cfg=dict(size=(1025, 2049)),
    ),
    backbone=dict(
        type="search.AutoDeepLab",
        layers=12,
        blocks=5,
        filters=20,
        layout="published",
        norm=dict(eps=1e-3, momentum=3e-4),
        drop_path=0.2,
    ),
    decode_head=dict(
        type="search.DeepLabV3PlusHead",
        # written from the backbone
        in_channels=[100, 200],
        in_index=[0, 1],
        channels=256,
        # read from the data
        num_classes=19,
        norm_cfg=dict(type="BN", eps=1e-5, momentum=3e-4),
        align_corners=True,
        loss_decode=dict(type="mmseg.CrossEntropyLoss", avg_non_ignore=True),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)
