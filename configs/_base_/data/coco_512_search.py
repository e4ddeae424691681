"""COCO 2017 for a search by gradients on squares of 512 pixels: halves of the training images for weights and logits, a few to
score. ``val2017`` is the test, which no search reads."""

_base_ = "coco_512_proxy.py"

splits = dict(_delete_=True, weights=0.49, architecture=0.49, validation=0.02, seed=0)
arch_dataloader = {{_base_.train_dataloader}}
