"""The demonstration's training of a searched or random cell on the handwritten digits."""

_base_ = "../classification/cells_digits_cpu_retrain.py"

model = dict(backbone=dict(layers=4))
