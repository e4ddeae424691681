"""What every detection run shares: mmdet's types, COCO's average precision, which decides."""

task = "detection"
seed = 0
# mmdet takes seconds to import, so only runs of this task do
custom_imports = dict(imports=["tasks.detection"], allow_failed_imports=False)
# mmdet builds the inner parts of its models by types without a scope
default_scope = "mmdet"
val_cfg = dict()
test_cfg = dict()
val_evaluator = dict(type="search.BoxAP")
test_evaluator = dict(type="search.BoxAP")
score = dict(key="bbox_mAP", rule="greater")
visualizer = dict(type="mmdet.DetLocalVisualizer", vis_backends=[dict(type="LocalVisBackend")])
