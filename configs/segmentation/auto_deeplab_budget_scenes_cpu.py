"""Auto-DeepLab's search on the embedded scenes within a budget of the whole segmentor, at the size of the images."""

_base_ = "auto_deeplab_scenes_cpu.py"

# at 192x128 the space begins at 25.4 M multiply-adds; half of its networks have more than 29 M
budget = dict(macs=27e6, params=30e3)
