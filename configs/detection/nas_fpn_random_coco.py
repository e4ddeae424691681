"""NAS-FPN on COCO by random search, on the proxy task and the cluster of `nas_fpn_ppo_coco.py`."""

_base_ = [
    "../_base_/data/coco_512_proxy.py",
    "../_base_/model/nas_fpn_proxy.py",
    "../_base_/strategy/random_search.py",
    "../_base_/schedule/detection_proxy.py",
    "../_base_/runtime/detection.py",
]

strategy = dict(trials=8000)
executor = dict(type="ray", jobs=20, threads=4, gpus=1, address="auto")
