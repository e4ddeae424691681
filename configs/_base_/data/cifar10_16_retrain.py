"""CIFAR-10 images in folders at 16x16, 500 of each class: training an architecture on 2 CPU cores."""

data_root = "data/cifar10"
splits = dict(train=0.9, validation=0.1, seed=0, per_class=500)
normalize = dict(type="search.Normalize", mean=[0.491, 0.482, 0.447], std=[0.247, 0.243, 0.262])
train_pipeline = [
    dict(type="search.RandomCrop", size=16, padding=2),
    dict(type="search.RandomHorizontalFlip"),
    normalize,
]
loading = dict(num_workers=0, collate_fn=dict(type="default_collate"))
train_dataloader = dict(
    batch_size=64,
    dataset=dict(type="search.ImageFolder", folder="train", pipeline=train_pipeline, size=16, cache=True),
    **loading,
)
val_dataloader = dict(
    batch_size=100,
    dataset=dict(type="search.ImageFolder", folder="train", pipeline=[normalize], size=16, cache=True),
    sampler=dict(type="DefaultSampler", shuffle=False),
    **loading,
)
test_dataloader = dict(
    batch_size=128,
    dataset=dict(type="search.ImageFolder", folder="val", pipeline=[normalize], size=16),
    sampler=dict(type="DefaultSampler", shuffle=False),
    **loading,
)
