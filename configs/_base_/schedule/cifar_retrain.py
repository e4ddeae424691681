"""Training on CIFAR-10 as DARTS and PC-DARTS do: 600 epochs, SGD 0.025 by a cosine to 0."""

train_cfg = dict(type="search.TrainLoop", max_epochs=600)
optim_wrapper = dict(
    optimizer=dict(type="SGD", lr=0.025, momentum=0.9, weight_decay=3e-4),
    clip_grad=dict(max_norm=5),
)
param_scheduler = [dict(type="CosineAnnealingLR", T_max=600, by_epoch=True)]
