"""Single path one-shot (arXiv 1904.00420): uniform paths, 1,000 of them scored by evolution, norms from 200 batches."""

# sampling='uniform' draws every path anew, as the paper does; 'fair' gives every option its turn, as FairNAS does, of NAS-FPN
# every ordered pair of inputs once in n (n - 1) steps (search/strategies/paths.py). README's results were measured with uniform
# paths, and no comparison of the two was made here, so the paper's stays the default
strategy = dict(type="SinglePath", trials=1000, population=50, sample=10, batches=200)
