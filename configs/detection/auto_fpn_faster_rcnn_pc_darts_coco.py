"""An Auto-FPN-style Faster R-CNN, neck and heads, on COCO by PC-DARTS at 512 pixels, 12 epochs of which the logits wait 4.

Auto-FPN's settings aren't public: these are a usual training's, with PC-DARTS's optimiser of the logits.
"""

_base_ = [
    "../_base_/data/coco_512_search.py",
    "../_base_/model/auto_fpn_faster_rcnn.py",
    "../_base_/strategy/pc_darts.py",
    "../_base_/schedule/detection_1x.py",
    "../_base_/runtime/detection.py",
]

model = dict(
    neck=dict(affine=False, partial=4, plan="auto"),
    rpn_head=dict(cell=dict(affine=False, partial=4, plan="auto")),
    roi_head=dict(bbox_head=dict(cell=dict(affine=False, partial=4, plan="auto"))),
)
strategy = dict(freeze_epochs=4)
train_cfg = dict(type="search.BilevelLoop", val_interval=4)
optim_wrapper = dict(optimizer=dict(lr=0.02), clip_grad=dict(max_norm=10))
# batches are per process
auto_scale_lr = dict(enable=True)
