"""COCO 2017 for the proxy task of a search by trials: squares of 512 pixels, 7,392 training images held out for the scores.

``val2017`` is the test, which no search reads.
"""

_base_ = "coco_640_retrain.py"

# 7,392 of 118,287 training images
splits = dict(train=0.93751, validation=0.06249)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="mmdet.LoadAnnotations", with_bbox=True),
    dict(type="RandomResize", scale=(512, 512), ratio_range=(0.8, 1.2), keep_ratio=True, resize_type="mmdet.Resize"),
    dict(type="mmdet.RandomCrop", crop_size=(512, 512)),
    dict(type="mmdet.RandomFlip", prob=0.5),
    dict(type="mmdet.PackDetInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="mmdet.Resize", scale=(512, 512), keep_ratio=True),
    # as they are: predictions are brought to the images' size
    dict(type="mmdet.LoadAnnotations", with_bbox=True),
    dict(type="mmdet.PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=8, dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(batch_size=8, dataset=dict(pipeline=test_pipeline))
