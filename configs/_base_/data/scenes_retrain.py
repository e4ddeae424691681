"""The embedded scenes for training a derived network; ``val`` is held out for the test."""

splits = dict(train=0.9, validation=0.1, seed=0)
# digits aren't flipped: a mirrored one is none; the scenes have many sizes and colours as they are
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="mmseg.LoadAnnotations"),
    dict(type="mmseg.RandomCrop", crop_size=(96, 96), cat_max_ratio=0.95),
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
            [dict(type="mmseg.LoadAnnotations")],
            [dict(type="mmseg.PackSegInputs")],
        ],
    ),
]
train_folders = dict(img_path="leftImg8bit/train", seg_map_path="gtFine/train")
val_folders = dict(img_path="leftImg8bit/val", seg_map_path="gtFine/val")
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    dataset=dict(type="search.Scenes", data_prefix=train_folders, pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=0,
    dataset=dict(type="search.Scenes", data_prefix=train_folders, pipeline=test_pipeline),
    sampler=dict(type="DefaultSampler", shuffle=False),
)
test_dataloader = dict(
    batch_size=4,
    num_workers=0,
    dataset=dict(type="search.Scenes", data_prefix=val_folders, pipeline=test_pipeline),
    sampler=dict(type="DefaultSampler", shuffle=False),
)
