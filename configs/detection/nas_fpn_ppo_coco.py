"""NAS-FPN's search on COCO as its paper's (arXiv 1904.07392), as far as that is known: a controller and PPO, 8,000 pyramids.

A trial is a proxy task: 10 epochs at 512 pixels with a small ResNet and three repeats, scored by AP on 7,392 training images
that are held out. The paper's ResNet-10 isn't one of mmdet's: here it is ResNet-18. Of the controller's settings none is known;
these are those of NASNet's (arXiv 1707.07012). Trials run on the Ray cluster that this machine belongs to, 20 at
a time, a GPU each; --cfg-options executor.type=local executor.jobs=1 trains them here, one after the other.
"""

_base_ = [
    "../_base_/data/coco_512_proxy.py",
    "../_base_/model/nas_fpn_proxy.py",
    "../_base_/strategy/ppo.py",
    "../_base_/schedule/detection_proxy.py",
    "../_base_/runtime/detection.py",
]

strategy = dict(trials=8000, batch=20, lr=3.5e-4, entropy=1e-5)
executor = dict(type="ray", jobs=20, threads=4, gpus=1, address="auto")
