"""Auto-DeepLab's space searched with partial channels (PC-DARTS, K = 4) on any folder in Cityscapes' layout, in minutes on
2 cores: --cfg-options data_root=FOLDER."""

_base_ = [
    "../_base_/data/cityscapes_folder_cpu_search.py",
    "../_base_/model/auto_deeplab_supernet.py",
    "../_base_/strategy/pc_darts.py",
    "../_base_/schedule/segmentation_cpu_search.py",
    "../_base_/runtime/segmentation.py",
]

splits = dict(images=120)
train_dataloader = dict(batch_size=4)
arch_dataloader = dict(batch_size=4)
model = dict(
    data_preprocessor=dict(size=(128, 128)),
    backbone=dict(layers=5, blocks=3, filters=4, stem=(16, 16, 24), partial=4, plan="batched"),
    decode_head=dict(in_channels=[12, 24, 48, 96], align_corners=False),
)
strategy = dict(freeze_epochs=2)
# a few dozen steps: the logits must move faster than in the paper
arch_optimizer = dict(lr=0.03)
