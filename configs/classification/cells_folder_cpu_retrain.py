"""Training a searched cell on any ImageNet-layout folder, in minutes on 2 cores: --cfg-options
data_root=FOLDER."""

_base_ = [
    "../_base_/data/folder_cpu_retrain.py",
    "../_base_/schedule/cpu_retrain.py",
    "../_base_/runtime/default.py",
]

model = dict(
    type="search.ImageClassifier",
    backbone=dict(type="search.CellNet", channels=12, layers=4, stem="cifar"),
    # read from the data
    num_classes=10,
)
