"""What every classification run shares: validation and test loops, the score, log files."""

task = "classification"
seed = 0
val_cfg = dict()
test_cfg = dict()
val_evaluator = dict(type="search.TopK", topk=(1, 5))
test_evaluator = dict(type="search.TopK", topk=(1, 5))
score = dict(key="top1", rule="greater")
visualizer = dict(type="Visualizer", vis_backends=[dict(type="LocalVisBackend")])
