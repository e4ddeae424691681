"""NAS-FPN on COCO by DARTS, first order, with partial channels, at 512 pixels, 12 epochs of which the logits wait 4. Ours; the
paper has no such search."""

_base_ = [
    "../_base_/data/coco_512_search.py",
    "../_base_/model/nas_fpn_proxy.py",
    "../_base_/strategy/darts.py",
    "../_base_/schedule/detection_1x.py",
    "../_base_/runtime/detection.py",
]

model = dict(neck=dict(affine=False, partial=4))
strategy = dict(order=1, freeze_epochs=4)
train_cfg = dict(type="search.BilevelLoop", val_interval=4)
optim_wrapper = dict(clip_grad=dict(max_norm=10))
# batches are per process
auto_scale_lr = dict(enable=True)
