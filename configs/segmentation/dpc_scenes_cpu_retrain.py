"""Training a searched dense prediction cell on the embedded scenes, in minutes on 2 cores."""

_base_ = [
    "../_base_/data/scenes_retrain.py",
    "../_base_/model/dpc_segmentor_small.py",
    "../_base_/schedule/segmentation_cpu_retrain.py",
    "../_base_/runtime/segmentation.py",
]
