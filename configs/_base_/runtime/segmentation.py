"""What every segmentation run shares: mmseg's types, the scores, painted images; `mIoU_present` decides."""

task = "segmentation"
seed = 0
# mmseg takes seconds to import, so only runs of this task do
custom_imports = dict(imports=["tasks.segmentation"], allow_failed_imports=False)
# mmseg builds the inner parts of its models by types without a scope
default_scope = "mmseg"
val_cfg = dict()
test_cfg = dict()
val_evaluator = dict(type="search.MeanIoU", iou_metrics=["mIoU"])
test_evaluator = dict(type="search.MeanIoU", iou_metrics=["mIoU"])
score = dict(key="mIoU_present", rule="greater")
visualizer = dict(type="mmseg.SegLocalVisualizer", vis_backends=[dict(type="LocalVisBackend")])
