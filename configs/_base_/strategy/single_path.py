"""Single path one-shot (arXiv 1904.00420): uniform paths, 1,000 of them scored by evolution, norms from 200 batches."""

strategy = dict(type="SinglePath", trials=1000, population=50, sample=10, batches=200)
