"""Any folder in Cityscapes' layout for a training on CPU: longest side 256 pixels, crops of 128, scales 0.75 to 1.5.

``val`` is held out for the test. Classes are Cityscapes', or those of ``classes.txt`` in the folder.
"""

data_root = "data/cityscapes"
splits = dict(train=0.9, validation=0.1, seed=0)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="mmseg.LoadAnnotations"),
    dict(type="RandomResize", scale=(256, 256), ratio_range=(0.75, 1.5), keep_ratio=True),
    dict(type="mmseg.RandomCrop", crop_size=(128, 128), cat_max_ratio=0.75),
    dict(type="mmseg.RandomFlip", prob=0.5),
    dict(type="mmseg.PhotoMetricDistortion"),
    dict(type="mmseg.PackSegInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="mmseg.Resize", scale=(256, 256), keep_ratio=True),
    # as they are: predictions are brought to their size; by the name that mmseg's inferencer looks for
    dict(type="LoadAnnotations"),
    dict(type="mmseg.PackSegInputs"),
]
tta_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(
        type="TestTimeAug",
        transforms=[
            [dict(type="mmseg.Resize", scale=(side, side), keep_ratio=True) for side in (192, 256, 320)],
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
    num_workers=0,
    dataset=dict(type="search.CityscapesFolder", data_prefix=train_folders, pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    dataset=dict(type="search.CityscapesFolder", data_prefix=train_folders, pipeline=test_pipeline),
    sampler=dict(type="DefaultSampler", shuffle=False),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=0,
    dataset=dict(type="search.CityscapesFolder", data_prefix=val_folders, pipeline=test_pipeline),
    sampler=dict(type="DefaultSampler", shuffle=False),
)
