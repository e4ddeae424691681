"""Auto-DeepLab's search, path and cell, on the embedded scenes, in minutes on 2 cores: L = 5, B = 3, F = 4."""

_base_ = [
    "../_base_/data/scenes_search.py",
    "../_base_/model/auto_deeplab_supernet.py",
    "../_base_/strategy/auto_deeplab.py",
    "../_base_/schedule/segmentation_cpu_search.py",
    "../_base_/runtime/segmentation.py",
]

splits = dict(images=120)
train_dataloader = dict(batch_size=4)
arch_dataloader = dict(batch_size=4)
model = dict(
    data_preprocessor=dict(size=(96, 96)),
    backbone=dict(layers=5, blocks=3, filters=4, stem=(16, 16, 24), plan="batched"),
    decode_head=dict(
        in_channels=[12, 24, 48, 96],
        align_corners=False,
        # most pixels are background; mmseg's weights of classes need its mean over all pixels
        loss_decode=dict(class_weight=[0.1] + [1.0] * 10, avg_non_ignore=False),
    ),
)
strategy = dict(freeze_epochs=2)
# a few dozen steps: the logits must move faster than in the paper
arch_optimizer = dict(lr=0.03)
