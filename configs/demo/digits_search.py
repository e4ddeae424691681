"""The demonstration's search: PC-DARTS on the handwritten digits, 6 epochs."""

_base_ = "../classification/cells_pc_darts_digits_cpu.py"

train_cfg = dict(max_epochs=6)
param_scheduler = [dict(type="CosineAnnealingLR", T_max=6, eta_min=0.001, by_epoch=True)]
