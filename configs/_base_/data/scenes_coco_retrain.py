"""The embedded scenes with boxes, for training a detector; ``val`` is held out for the test.

They are drawn when they are first needed, in the user's cache or in the folder that VISNAS_CACHE names.
"""

_base_ = "coco_loaders.py"

splits = dict(train=0.9, validation=0.1, seed=0)
# digits aren't flipped: a mirrored one is none
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="mmdet.LoadAnnotations", with_bbox=True),
    dict(type="RandomResize", scale=(192, 128), ratio_range=(0.8, 1.25), keep_ratio=True, resize_type="mmdet.Resize"),
    dict(type="mmdet.RandomCrop", crop_size=(192, 128), allow_negative_crop=True),
    dict(type="mmdet.PackDetInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="mmdet.Resize", scale=(192, 128), keep_ratio=True),
    # as they are: predictions are brought to the images' size
    dict(type="mmdet.LoadAnnotations", with_bbox=True),
    dict(type="mmdet.PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
tta_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(
        type="TestTimeAug",
        transforms=[
            [dict(type="mmdet.Resize", scale=size, keep_ratio=True) for size in ((160, 112), (192, 128), (256, 176))],
            # not mirrored, which mmdet has to be told
            [dict(type="mmdet.RandomFlip", prob=0.0)],
            [dict(type="mmdet.LoadAnnotations", with_bbox=True)],
            [dict(type="mmdet.PackDetInputs")],
        ],
    ),
]
train_dataloader = dict(dataset=dict(type="search.CocoScenes", pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(type="search.CocoScenes", pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(type="search.CocoScenes", pipeline=test_pipeline))
