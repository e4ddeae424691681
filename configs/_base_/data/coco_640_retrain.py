"""COCO 2017 for training a detector on squares of 640 pixels: images scaled by 0.8 to 1.2, cut, mirrored at random."""

_base_ = "coco_retrain.py"

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="mmdet.LoadAnnotations", with_bbox=True),
    dict(type="RandomResize", scale=(640, 640), ratio_range=(0.8, 1.2), keep_ratio=True, resize_type="mmdet.Resize"),
    dict(type="mmdet.RandomCrop", crop_size=(640, 640)),
    dict(type="mmdet.RandomFlip", prob=0.5),
    dict(type="mmdet.PackDetInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="mmdet.Resize", scale=(640, 640), keep_ratio=True),
    # as they are: predictions are brought to the images' size
    dict(type="mmdet.LoadAnnotations", with_bbox=True),
    dict(type="mmdet.PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
tta_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(
        type="TestTimeAug",
        transforms=[
            [dict(type="mmdet.Resize", scale=size, keep_ratio=True) for size in ((512, 512), (640, 640), (768, 768))],
            [dict(type="mmdet.RandomFlip", prob=prob) for prob in (0.0, 1.0)],
            [dict(type="mmdet.LoadAnnotations", with_bbox=True)],
            [dict(type="mmdet.PackDetInputs")],
        ],
    ),
]
train_dataloader = dict(batch_size=8, num_workers=4, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
