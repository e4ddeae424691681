"""DARTS, first order, on the handwritten digits, in minutes on 2 cores."""

_base_ = [
    "../_base_/data/digits_search.py",
    "../_base_/model/cell_supernet.py",
    "../_base_/strategy/darts.py",
    "../_base_/schedule/cpu_search.py",
    "../_base_/runtime/default.py",
]

model = dict(backbone=dict(channels=8, layers=4))
strategy = dict(order=1)
# a few dozen steps: the logits must move faster than in the paper
arch_optimizer = dict(lr=0.03)
