"""Training of DeepLab on Cityscapes as its official code recommends (tensorflow/models, research/deeplab: g3doc/cityscapes.md
and train.py): 90,000 steps of batches of 8, momentum 0.9, weight decay 4e-5, polynomial decay of power 0.9.

90,000 steps are 243 epochs of 371 steps. train.py's rate from an ImageNet checkpoint is 0.007 (for PASCAL; none is named for
Cityscapes).
"""

train_cfg = dict(type="search.TrainLoop", max_epochs=243)
optim_wrapper = dict(optimizer=dict(type="SGD", lr=0.007, momentum=0.9, weight_decay=4e-5))
param_scheduler = [dict(type="PolyLR", power=0.9, eta_min=0.0, begin=0, end=243, by_epoch=True, convert_to_iter_based=True)]
