"""The demonstration's search: PC-DARTS on the handwritten digits."""

_base_ = "../classification/cells_pc_darts_digits_cpu.py"
