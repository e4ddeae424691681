"""COCO 2017 for training a detector as its baselines are: images within 1333x800 pixels, mirrored at random.

No image validates while a detector is trained; ``val2017`` is the test.
"""

_base_ = "coco_loaders.py"

data_root = "data/coco"
splits = dict(train=1.0, validation=0.0, seed=0)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="mmdet.LoadAnnotations", with_bbox=True),
    dict(type="mmdet.Resize", scale=(1333, 800), keep_ratio=True),
    dict(type="mmdet.RandomFlip", prob=0.5),
    dict(type="mmdet.PackDetInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="mmdet.Resize", scale=(1333, 800), keep_ratio=True),
    # as they are: predictions are brought to the images' size
    dict(type="mmdet.LoadAnnotations", with_bbox=True),
    dict(type="mmdet.PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
tta_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(
        type="TestTimeAug",
        transforms=[
            [dict(type="mmdet.Resize", scale=size, keep_ratio=True) for size in ((1333, 640), (1333, 800), (1666, 1000))],
            [dict(type="mmdet.RandomFlip", prob=prob) for prob in (0.0, 1.0)],
            [dict(type="mmdet.LoadAnnotations", with_bbox=True)],
            [dict(type="mmdet.PackDetInputs")],
        ],
    ),
]
train_files = dict(ann_file="annotations/instances_train2017.json", data_prefix=dict(img="train2017/"))
test_files = dict(ann_file="annotations/instances_val2017.json", data_prefix=dict(img="val2017/"))
train_dataloader = dict(
    batch_size=2,
    num_workers=2,
    dataset=dict(**train_files, filter_cfg=dict(filter_empty_gt=True, min_size=32), pipeline=train_pipeline),
)
val_dataloader = dict(batch_size=1, num_workers=2, dataset=dict(**train_files, pipeline=test_pipeline))
test_dataloader = dict(batch_size=1, num_workers=2, dataset=dict(**test_files, pipeline=test_pipeline))
