"""A recurrent controller trained by PPO (as in NAS-FPN, arXiv 1904.07392), for hundreds of trials: each is trained from
scratch; the best of all on validation images is kept."""

strategy = dict(type="PPO", trials=200, batch=10, lr=0.003, entropy=0.01)
# trainings at a time (strategy.batch at most), each in a process of its own; one that fails is tried once more
executor = dict(type="local", jobs=1, threads=1, retries=1)
