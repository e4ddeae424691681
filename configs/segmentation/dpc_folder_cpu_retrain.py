"""Training a searched dense prediction cell on any folder in Cityscapes' layout, in minutes on 2 cores: --cfg-options
data_root=FOLDER."""

_base_ = [
    "../_base_/data/cityscapes_folder_cpu_retrain.py",
    "../_base_/model/dpc_segmentor_small.py",
    "../_base_/schedule/segmentation_cpu_retrain.py",
    "../_base_/runtime/segmentation.py",
]

model = dict(data_preprocessor=dict(size=(128, 128)))
