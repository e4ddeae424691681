"""PC-DARTS on any ImageNet-layout folder, in minutes on 2 cores: --cfg-options data_root=FOLDER."""

_base_ = [
    "../_base_/data/folder_cpu_search.py",
    "../_base_/model/cell_supernet.py",
    "../_base_/strategy/pc_darts.py",
    "../_base_/schedule/cpu_search.py",
    "../_base_/runtime/default.py",
]

model = dict(backbone=dict(channels=8, layers=4, partial=4))
strategy = dict(freeze_epochs=2)
# a few dozen steps: the logits must move faster than in the paper
arch_optimizer = dict(lr=0.03)
