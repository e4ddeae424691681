"""Any folder in Cityscapes' layout for a search on CPU: longest side 256 pixels, crops of 128, at most 200 images.

``val`` is held out for the test. Classes are Cityscapes', or those of ``classes.txt`` in the folder.
"""

_base_ = "cityscapes_folder_cpu_retrain.py"

splits = dict(_delete_=True, weights=0.45, architecture=0.45, validation=0.1, seed=0, images=200)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="mmseg.LoadAnnotations"),
    dict(type="mmseg.Resize", scale=(256, 256), keep_ratio=True),
    dict(type="mmseg.RandomCrop", crop_size=(128, 128), cat_max_ratio=0.75),
    dict(type="mmseg.RandomFlip", prob=0.5),
    dict(type="mmseg.PhotoMetricDistortion"),
    dict(type="mmseg.PackSegInputs"),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
arch_dataloader = dict(
    batch_size=8,
    num_workers=0,
    dataset=dict(type="search.CityscapesFolder", data_prefix={{_base_.train_folders}}, pipeline=train_pipeline),
)
val_dataloader = dict(batch_size=4)
