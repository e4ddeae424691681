"""Cityscapes for Auto-DeepLab's search (arXiv 1901.02985, section 4.1): half resolution, crops of 321, two random halves of
the training images for weights and logits, batches of 2."""

data_root = "data/cityscapes"
splits = dict(weights=0.5, architecture=0.5, validation=0.0, seed=0)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="mmseg.LoadAnnotations"),
    dict(type="mmseg.Resize", scale=(1024, 512), keep_ratio=True),
    dict(type="mmseg.RandomCrop", crop_size=(321, 321)),
    dict(type="mmseg.PackSegInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="mmseg.Resize", scale=(1024, 512), keep_ratio=True),
    # as they are: predictions are brought to their size
    dict(type="mmseg.LoadAnnotations"),
    dict(type="mmseg.PackSegInputs"),
]
train_folders = dict(img_path="leftImg8bit/train", seg_map_path="gtFine/train")
val_folders = dict(img_path="leftImg8bit/val", seg_map_path="gtFine/val")
train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    dataset=dict(type="mmseg.CityscapesDataset", data_prefix=train_folders, pipeline=train_pipeline),
)
arch_dataloader = dict(
    batch_size=2,
    num_workers=4,
    dataset=dict(type="mmseg.CityscapesDataset", data_prefix=train_folders, pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=2,
    num_workers=4,
    drop_last=True,
    dataset=dict(type="mmseg.CityscapesDataset", data_prefix=train_folders, pipeline=test_pipeline),
    sampler=dict(type="DefaultSampler", shuffle=False),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=4,
    dataset=dict(type="mmseg.CityscapesDataset", data_prefix=val_folders, pipeline=test_pipeline),
    sampler=dict(type="DefaultSampler", shuffle=False),
)
