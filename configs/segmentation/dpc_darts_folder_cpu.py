"""Dense prediction cell by DARTS, first order, on any folder in Cityscapes' layout, in minutes on 2 cores: --cfg-options
data_root=FOLDER."""

_base_ = [
    "../_base_/data/cityscapes_folder_cpu_search.py",
    "../_base_/model/dpc_segmentor_small.py",
    "../_base_/strategy/darts.py",
    "../_base_/schedule/segmentation_cpu_search.py",
    "../_base_/runtime/segmentation.py",
]

splits = dict(images=120)
model = dict(data_preprocessor=dict(size=(128, 128)), neck=dict(affine=False, plan="auto"))
strategy = dict(order=1, freeze_epochs=2)
# a few dozen steps: the logits must move faster than in the paper; and with so many options their gradients are a hundredth of
# those in DARTS's cells, so that its weight decay would hold them where they are
arch_optimizer = dict(lr=0.03, weight_decay=0.0)
