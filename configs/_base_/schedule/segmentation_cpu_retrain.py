"""A short training of a segmentor: 20 epochs, AdamW 0.005, polynomial decay by steps (for batches of 8)."""

train_cfg = dict(type="search.TrainLoop", max_epochs=20, val_interval=5)
optim_wrapper = dict(
    optimizer=dict(type="AdamW", lr=0.005, weight_decay=1e-4),
    clip_grad=dict(max_norm=5),
)
param_scheduler = [dict(type="PolyLR", power=0.9, eta_min=1e-5, begin=0, end=20, by_epoch=True, convert_to_iter_based=True)]
