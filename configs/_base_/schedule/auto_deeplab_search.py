"""Auto-DeepLab's search (arXiv 1901.02985, section 4.2.2): 40 epochs, SGD 0.025 by a cosine to 0.001."""

train_cfg = dict(type="search.BilevelLoop", max_epochs=40)
optim_wrapper = dict(optimizer=dict(type="SGD", lr=0.025, momentum=0.9, weight_decay=3e-4))
# the rate moves with every step
param_scheduler = [
    dict(type="CosineAnnealingLR", T_max=40, eta_min=0.001, begin=0, end=40, by_epoch=True, convert_to_iter_based=True)
]
