"""ImageNet for PC-DARTS's search: of each class 10 % for the weights and 2.5 % for the logits, 224x224 crops.

Batches are per process: 8 processes make the paper's 1,024.
"""

data_root = "data/imagenet"
splits = dict(weights=0.10, architecture=0.025, validation=0.0, seed=0)
normalize = dict(type="search.Normalize", mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
train_pipeline = [
    dict(type="search.RandomResizedCrop", size=224),
    dict(type="search.RandomHorizontalFlip"),
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
arch_dataloader = dict(
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
