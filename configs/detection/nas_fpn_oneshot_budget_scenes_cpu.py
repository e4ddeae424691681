"""NAS-FPN by single path one-shot on the embedded scenes within a budget of the whole detector, at the size of the images."""

_base_ = "nas_fpn_oneshot_scenes_cpu.py"

# at 192x128 the space begins at 289.6 M multiply-adds, 275.3 M of them in every network; half have more than 292.3 M, and of
# activations (0.80 M to 0.88 M) more than 0.813 M. Parameters are equally many in all.
budget = dict(macs=291e6, activations=810e3)
