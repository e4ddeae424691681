"""The embedded scenes with boxes, digits on photographs of 192x128 pixels, for a search; ``val`` is held out for the test."""

_base_ = "scenes_coco_retrain.py"

splits = dict(_delete_=True, weights=0.45, architecture=0.45, validation=0.1, seed=0)
arch_dataloader = {{_base_.train_dataloader}}
