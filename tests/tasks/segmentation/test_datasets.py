import pytest

pytest.importorskip("mmseg")

import tasks.segmentation  # noqa: F401  (before mmseg's models)
from search.registry import DATASETS
from tasks.scenes import CLASSES, PALETTE, Settings, make

FOLDERS = dict(img_path="leftImg8bit/train", seg_map_path="gtFine/train")


def folder(root, **settings):
    return DATASETS.build(dict(type="search.CityscapesFolder", data_root=str(root), data_prefix=FOLDERS, **settings))


def test_classes_of_a_folder(make_folder):
    root = make_folder(train=4)
    meta = folder(root).metainfo
    assert len(folder(root)) == 4 and meta["classes"][13] == "car" and meta["palette"][13] == [0, 0, 142]
    (root / "classes.txt").write_text("soil\n\n leaf \n")
    assert folder(root).metainfo["classes"] == ["soil", "leaf"]
    assert folder(root, metainfo=dict(classes=["a", "b", "c"])).metainfo["classes"] == ["a", "b", "c"]
    (root / "classes.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"classes\.txt isn't text in UTF-8"):
        folder(root)


def test_scenes_are_drawn_where_they_are_asked_for(tmp_path):
    few = dict(width=48, height=32, train=3, val=1, test=1)
    data = DATASETS.build(dict(type="search.Scenes", data_root=str(tmp_path / "s"), scenes=few, data_prefix=FOLDERS))
    assert len(data) == 3 and tuple(data.metainfo["classes"]) == CLASSES
    assert data.metainfo["palette"] == [list(colour) for colour in PALETTE] and data.metainfo["label_map"] is None
    # any reader of the layout finds the same
    other = folder(make(Settings(**few), tmp_path / "s"))
    assert tuple(other.metainfo["classes"]) == CLASSES
    assert [other.get_data_info(i)["img_path"] for i in range(3)] == [data.get_data_info(i)["img_path"] for i in range(3)]
