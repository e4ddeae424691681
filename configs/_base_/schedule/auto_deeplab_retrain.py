"""Auto-DeepLab's training (arXiv 1901.02985, section 4.2.3): SGD 0.05, polynomial decay of power 0.9 over 1.5 million steps.

At batches of 8 of Cityscapes' 2,975 images these are 4,043 epochs of 371 steps; the paper names no batch size. The weight
decay is the official code's.
"""

train_cfg = dict(type="search.TrainLoop", max_epochs=4043)
optim_wrapper = dict(optimizer=dict(type="SGD", lr=0.05, momentum=0.9, weight_decay=4e-5))
param_scheduler = [dict(type="PolyLR", power=0.9, eta_min=0.0, begin=0, end=4043, by_epoch=True, convert_to_iter_based=True)]
