"""Object detection with mmdet; importing it lets mmdet run without mmcv's compiled operations (see `tasks.mm_ops`)."""

from tasks import mm_ops

# again, for modules of mm packages that were imported since
mm_ops.install()
