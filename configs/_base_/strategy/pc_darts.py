"""PC-DARTS on CIFAR-10 (yuhuixu1993/PC-DARTS): logits wait 15 epochs, first order; K is the model's
`partial`."""

strategy = dict(type="PCDARTS", freeze_epochs=15, order=1)
arch_optimizer = dict(type="Adam", lr=6e-4, betas=(0.5, 0.999), weight_decay=1e-3)
