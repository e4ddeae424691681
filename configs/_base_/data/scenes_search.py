"""The embedded scenes, digits on photographs of 192x128 pixels, for a search; ``val`` is held out for the test.

They are drawn when they are first needed, in the user's cache or in the folder that VISNAS_CACHE names.
"""

_base_ = "scenes_retrain.py"

splits = dict(_delete_=True, weights=0.45, architecture=0.45, validation=0.1, seed=0)
arch_dataloader = {{_base_.train_dataloader}}
val_dataloader = dict(batch_size=8)
