"""Cityscapes for training a derived network: scales 0.5 to 2, crops of 769, mirror images; ``val`` is the test."""

data_root = "data/cityscapes"
splits = dict(train=1.0, validation=0.0, seed=0)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="mmseg.LoadAnnotations"),
    dict(type="RandomResize", scale=(2048, 1024), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type="mmseg.RandomCrop", crop_size=(769, 769), cat_max_ratio=0.75),
    dict(type="mmseg.RandomFlip", prob=0.5),
    dict(type="mmseg.PackSegInputs"),
]
# loading by the names that mmseg's inferencer looks for
test_pipeline = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), dict(type="mmseg.PackSegInputs")]
tta_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(
        type="TestTimeAug",
        transforms=[
            [dict(type="mmseg.Resize", scale_factor=ratio, keep_ratio=True) for ratio in (0.75, 1.0, 1.25)],
            [dict(type="mmseg.RandomFlip", prob=prob, direction="horizontal") for prob in (0.0, 1.0)],
            [dict(type="mmseg.LoadAnnotations")],
            [dict(type="mmseg.PackSegInputs")],
        ],
    ),
]
train_folders = dict(img_path="leftImg8bit/train", seg_map_path="gtFine/train")
val_folders = dict(img_path="leftImg8bit/val", seg_map_path="gtFine/val")
train_dataloader = dict(
    batch_size=8,
    num_workers=8,
    dataset=dict(type="mmseg.CityscapesDataset", data_prefix=train_folders, pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    dataset=dict(type="mmseg.CityscapesDataset", data_prefix=train_folders, pipeline=test_pipeline),
    sampler=dict(type="DefaultSampler", shuffle=False),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=4,
    dataset=dict(type="mmseg.CityscapesDataset", data_prefix=val_folders, pipeline=test_pipeline),
    sampler=dict(type="DefaultSampler", shuffle=False),
)
