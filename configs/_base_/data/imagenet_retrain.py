"""ImageNet for training a derived network: 224x224 crops, flip, colour jitter; `val` is only tested on."""

data_root = "data/imagenet"
splits = dict(train=1.0, validation=0.0, seed=0)
normalize = dict(type="search.Normalize", mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
train_pipeline = [
    dict(type="search.RandomResizedCrop", size=224),
    dict(type="search.RandomHorizontalFlip"),
    dict(type="search.ColorJitter", brightness=0.4, contrast=0.4, saturation=0.4, hue=0.2),
    normalize,
]
test_pipeline = [
    dict(type="search.Resize", size=256),
    dict(type="search.CenterCrop", size=224),
    normalize,
]
loading = dict(num_workers=8, persistent_workers=True, pin_memory=True, collate_fn=dict(type="default_collate"))
train_dataloader = dict(
    batch_size=128,
    dataset=dict(type="search.ImageFolder", folder="train", pipeline=train_pipeline),
    **loading,
)
val_dataloader = dict(
    batch_size=128,
    dataset=dict(type="search.ImageFolder", folder="train", pipeline=test_pipeline),
    sampler=dict(type="DefaultSampler", shuffle=False),
    **loading,
)
test_dataloader = dict(
    batch_size=128,
    dataset=dict(type="search.ImageFolder", folder="val", pipeline=test_pipeline),
    sampler=dict(type="DefaultSampler", shuffle=False),
    **loading,
)
