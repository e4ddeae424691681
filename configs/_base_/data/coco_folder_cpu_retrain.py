"""Any folder in COCO's layout for a training on CPU: images within 192x144 pixels, mirrored at random.

``--cfg-options data_root=FOLDER``, and where its files aren't named as here ``train_ann``, ``val_ann``, ``train_img`` and
``val_img``. ``val`` is held out for the test. Classes are those of the annotation files.
"""

_base_ = "coco_loaders.py"

data_root = "data/coco"
splits = dict(train=0.9, validation=0.1, seed=0)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="mmdet.LoadAnnotations", with_bbox=True),
    dict(type="mmdet.Resize", scale=(192, 144), keep_ratio=True),
    dict(type="mmdet.RandomFlip", prob=0.5),
    dict(type="mmdet.PackDetInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="mmdet.Resize", scale=(192, 144), keep_ratio=True),
    # as they are: predictions are brought to the images' size
    dict(type="mmdet.LoadAnnotations", with_bbox=True),
    dict(type="mmdet.PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
tta_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(
        type="TestTimeAug",
        transforms=[
            [dict(type="mmdet.Resize", scale=size, keep_ratio=True) for size in ((160, 120), (192, 144), (256, 192))],
            [dict(type="mmdet.RandomFlip", prob=prob) for prob in (0.0, 1.0)],
            [dict(type="mmdet.LoadAnnotations", with_bbox=True)],
            [dict(type="mmdet.PackDetInputs")],
        ],
    ),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
