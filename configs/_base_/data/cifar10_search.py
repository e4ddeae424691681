"""CIFAR-10 for a search: halves of the training images for weights and logits, pad-and-crop and flip."""

data_root = "data/cifar10"
splits = dict(weights=0.5, architecture=0.5, validation=0.0, seed=0)
normalize = dict(
    type="search.Normalize",
    mean=[0.49139968, 0.48215827, 0.44653124],
    std=[0.24703233, 0.24348505, 0.26158768],
)
train_pipeline = [
    dict(type="search.RandomCrop", size=32, padding=4),
    dict(type="search.RandomHorizontalFlip"),
    normalize,
]
loading = dict(num_workers=2, persistent_workers=True, collate_fn=dict(type="default_collate"))
train_dataloader = dict(
    batch_size=64,
    dataset=dict(type="search.CIFAR10", folder="train", pipeline=train_pipeline),
    **loading,
)
arch_dataloader = dict(
    batch_size=64,
    dataset=dict(type="search.CIFAR10", folder="train", pipeline=train_pipeline),
    **loading,
)
val_dataloader = dict(
    batch_size=256,
    dataset=dict(type="search.CIFAR10", folder="train", pipeline=[normalize]),
    sampler=dict(type="DefaultSampler", shuffle=False),
    **loading,
)
test_dataloader = dict(
    batch_size=256,
    dataset=dict(type="search.CIFAR10", folder="test", pipeline=[normalize]),
    sampler=dict(type="DefaultSampler", shuffle=False),
    **loading,
)
