"""NAS-FPN on COCO by single path one-shot: a supernet of the proxy's size, trained for 50 epochs, 1,000 pyramids scored with
its weights. Ours; the paper has no such search."""

_base_ = [
    "../_base_/data/coco_512_proxy.py",
    "../_base_/model/nas_fpn_proxy.py",
    "../_base_/strategy/single_path.py",
    "../_base_/schedule/detection_50e.py",
    "../_base_/runtime/detection.py",
]

# batches for the norms stay on the device: 1.3 GB
strategy = dict(batches=50)
train_cfg = dict(type="search.SinglePathLoop")
# batches are per process
auto_scale_lr = dict(enable=True)
