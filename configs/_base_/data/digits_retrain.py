"""scikit-learn's handwritten digits (8x8) for training a derived network; the same fifth is held out."""

splits = dict(train=0.9, validation=0.1, seed=0)
normalize = dict(type="search.Normalize", mean=[0.305] * 3, std=[0.376] * 3)
train_pipeline = [dict(type="search.RandomCrop", size=8, padding=1), normalize]
loading = dict(num_workers=0, collate_fn=dict(type="default_collate"))
train_dataloader = dict(
    batch_size=64,
    dataset=dict(type="search.Digits", folder="train", pipeline=train_pipeline),
    **loading,
)
val_dataloader = dict(
    batch_size=180,
    dataset=dict(type="search.Digits", folder="train", pipeline=[normalize]),
    sampler=dict(type="DefaultSampler", shuffle=False),
    **loading,
)
test_dataloader = dict(
    batch_size=180,
    dataset=dict(type="search.Digits", folder="test", pipeline=[normalize]),
    sampler=dict(type="DefaultSampler", shuffle=False),
    **loading,
)
