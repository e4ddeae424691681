"""Auto-DeepLab's search on Cityscapes with the paper's settings (arXiv 1901.02985, section 4.2).

Half-resolution images, crops of 321x321, batches of 2, 40 epochs, the logits wait 20; scored on the logits' half.
Differences: an epoch's last batch is left out when it isn't full; the loss counts pixels with a class only; a step moves the
logits before the weights, and only the weights' pass moves running statistics.
"""

_base_ = [
    "../_base_/data/cityscapes_search.py",
    "../_base_/model/auto_deeplab_supernet.py",
    "../_base_/strategy/auto_deeplab.py",
    "../_base_/schedule/auto_deeplab_search.py",
    "../_base_/runtime/segmentation.py",
]

score = dict(key="mIoU")
