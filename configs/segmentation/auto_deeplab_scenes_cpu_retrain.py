"""Training a searched path and cell on the embedded scenes, in minutes on 2 cores."""

_base_ = [
    "../_base_/data/scenes_retrain.py",
    "../_base_/model/auto_deeplab_derived.py",
    "../_base_/schedule/segmentation_cpu_retrain.py",
    "../_base_/runtime/segmentation.py",
]

model = dict(
    data_preprocessor=dict(size=(96, 96), test_cfg=None),
    # as searched, with torch's norms: a short training would leave the published momentum's statistics behind
    backbone=dict(layers=5, blocks=3, filters=8, stem=(16, 16, 24), layout="search", norm=None, drop_path=0.0),
    decode_head=dict(
        in_channels=[24, 48],
        channels=48,
        low_channels=16,
        dilations=[1, 2, 3],
        norm_cfg=dict(_delete_=True, type="BN"),
        align_corners=False,
        # most pixels are background; mmseg's weights of classes need its mean over all pixels
        loss_decode=dict(class_weight=[0.1] + [1.0] * 10, avg_non_ignore=False),
    ),
)
