"""Random search (arXiv 1902.07638): different architectures, all equally likely, each trained from scratch; the best on
validation images is kept."""

strategy = dict(type="RandomSearch", trials=8)
# trainings at a time, each in a process of its own
executor = dict(jobs=1, threads=1)
