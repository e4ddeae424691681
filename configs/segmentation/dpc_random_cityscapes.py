"""Random search of a dense prediction cell on Cityscapes, as the paper's (arXiv 1809.04184): 28,000 cells, each trained for
30,000 steps on a frozen MobileNetV2.

30,000 steps are 90 epochs of 334 batches of 8. The paper reads the backbone's maps from a cache, without augmentation; here
they are computed from augmented crops. It scores on Cityscapes' `val`, which is the held-out test here: a tenth of the training
images scores. Of its learning rate and crops nothing is known; they are those of DeepLab's official code. The paper trains its
best 50 cells in full and keeps the best of these: that is tools/train.py with dpc_cityscapes_retrain.py, on the architectures
in the work directory's `trials`. Weights of the backbone: see configs/_base_/model/dpc_pretrained.py.
"""

_base_ = [
    "../_base_/data/cityscapes_retrain.py",
    "../_base_/model/dpc_pretrained.py",
    "../_base_/strategy/random_search.py",
    "../_base_/schedule/deeplab_retrain.py",
    "../_base_/runtime/segmentation.py",
]

splits = dict(train=0.9, validation=0.1)
model = dict(backbone=dict(frozen_stages=3))
strategy = dict(trials=28000)
executor = dict(threads=8)
train_cfg = dict(max_epochs=90, val_interval=90)
param_scheduler = [dict(type="PolyLR", power=0.9, eta_min=0.0, begin=0, end=90, by_epoch=True, convert_to_iter_based=True)]
score = dict(key="mIoU")
