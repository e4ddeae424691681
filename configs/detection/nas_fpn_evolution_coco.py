"""NAS-FPN on COCO by regularised evolution with the settings of arXiv 1802.01548 (population 100, samples of 25), on the proxy
task and the cluster of `nas_fpn_ppo_coco.py`."""

_base_ = [
    "../_base_/data/coco_512_proxy.py",
    "../_base_/model/nas_fpn_proxy.py",
    "../_base_/strategy/evolution.py",
    "../_base_/schedule/detection_proxy.py",
    "../_base_/runtime/detection.py",
]

strategy = dict(trials=8000, population=100, sample=25, at_once=20)
executor = dict(type="ray", jobs=20, threads=4, gpus=1, address="auto")
