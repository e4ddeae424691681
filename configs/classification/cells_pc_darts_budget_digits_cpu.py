"""PC-DARTS on the handwritten digits within a budget of the whole classifier, at the size of the images."""

_base_ = "cells_pc_darts_digits_cpu.py"

# at 8x8 the space begins at 0.198 M multiply-adds and 12.5 k parameters; half of its networks have more than 0.43 M and 39 k
budget = dict(macs=350e3, params=32e3)
