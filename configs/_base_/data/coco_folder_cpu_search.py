"""Any folder in COCO's layout for a search on CPU: images within 192x144 pixels, at most 200 of them.

Files and classes as in `coco_folder_cpu_retrain.py`.
"""

_base_ = "coco_folder_cpu_retrain.py"

splits = dict(_delete_=True, weights=0.45, architecture=0.45, validation=0.1, seed=0, images=200)
arch_dataloader = {{_base_.train_dataloader}}
