"""DARTS, arXiv 1806.09055: second order as in its best result; --cfg-options strategy.order=1 is first
order."""

strategy = dict(type="DARTS", order=2)
arch_optimizer = dict(type="Adam", lr=3e-4, betas=(0.5, 0.999), weight_decay=1e-3)
