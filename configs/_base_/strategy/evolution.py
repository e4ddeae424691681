"""Regularised evolution (arXiv 1802.01548) with a small population, for tens of trials: each is trained from scratch; the best
of all on validation images is kept."""

strategy = dict(type="Evolution", trials=40, population=12, sample=4, at_once=1)
# trainings at a time (strategy.at_once at most), each in a process of its own; one that fails is tried once more
executor = dict(type="local", jobs=1, threads=1, retries=1)
