"""Loaders of data in COCO's layout, as far as all detection configs have them: ``val`` is held out for the test.

A config that is based on this one says what the loaders read (``pipeline``).
"""

loader = dict(batch_size=8, num_workers=0)
train_files = dict(type="search.CocoImages", ann_file="annotations/instances_train.json", data_prefix=dict(img="train/"))
test_files = dict(type="search.CocoImages", ann_file="annotations/instances_val.json", data_prefix=dict(img="val/"))
in_order = dict(type="DefaultSampler", shuffle=False)
train_dataloader = dict(**loader, dataset=train_files)
val_dataloader = dict(**loader, dataset=dict(**train_files, test_mode=True), sampler=in_order)
test_dataloader = dict(**loader, dataset=dict(**test_files, test_mode=True), sampler=in_order)
