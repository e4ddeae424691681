"""Auto-DeepLab's search (arXiv 1901.02985, section 4.2.2): first order, logits wait 20 of 40 epochs."""

strategy = dict(type="DARTS", order=1, freeze_epochs=20)
# the paper names no betas: Adam's own
arch_optimizer = dict(type="Adam", lr=3e-3, betas=(0.9, 0.999), weight_decay=1e-3)
