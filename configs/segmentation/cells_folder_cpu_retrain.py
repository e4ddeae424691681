"""Training a searched cell as a segmentor's backbone on any folder in Cityscapes' layout, in minutes on 2 cores:
--cfg-options data_root=FOLDER."""

_base_ = [
    "../_base_/data/cityscapes_folder_cpu_retrain.py",
    "../_base_/model/cell_segmentor.py",
    "../_base_/schedule/segmentation_cpu_retrain.py",
    "../_base_/runtime/segmentation.py",
]

model = dict(data_preprocessor=dict(size=(128, 128)))
