"""Any ImageNet-layout folder for training on CPU: 32x32, held in memory, at most 50 batches an epoch."""

data_root = "data/imagenet"
splits = dict(train=0.9, validation=0.1, seed=0)
normalize = dict(type="search.Normalize", mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
train_pipeline = [
    dict(type="search.RandomCrop", size=32, padding=4),
    dict(type="search.RandomHorizontalFlip"),
    normalize,
    dict(type="search.Cutout", length=8),
]
loading = dict(num_workers=0, collate_fn=dict(type="default_collate"))
train_dataloader = dict(
    batch_size=64,
    num_batch_per_epoch=50,
    dataset=dict(type="search.ImageFolder", folder="train", pipeline=train_pipeline, size=32, cache=True),
    **loading,
)
val_dataloader = dict(
    batch_size=128,
    dataset=dict(type="search.ImageFolder", folder="train", pipeline=[normalize], size=32, cache=True),
    sampler=dict(type="DefaultSampler", shuffle=False),
    **loading,
)
test_dataloader = dict(
    batch_size=128,
    dataset=dict(type="search.ImageFolder", folder="val", pipeline=[normalize], size=32),
    sampler=dict(type="DefaultSampler", shuffle=False),
    **loading,
)
