"""Annotation files: one sentence for each thing that is wrong, and what is put right."""

import json

import pytest

pytest.importorskip("mmdet")

import tasks.detection  # noqa: F401  (before mmdet's models)
from search.engine.errors import UserError
from tasks.detection.annotations import Coco, read


def content(**changes):
    images = [dict(id=1, file_name="a.png", width=64, height=48), dict(id=2, file_name="b.png", width=64, height=48)]
    annotations = [
        dict(id=0, image_id=1, category_id=9, bbox=[1, 2, 30, 20], area=600, iscrowd=0),
        dict(id=5, image_id=2, category_id=4, bbox=[0, 0, 10, 10.5]),
    ]
    categories = [dict(id=9, name="cat"), dict(id=4, name="dog")]
    return dict(images=images, annotations=annotations, categories=categories) | changes


def broken(part, number, **values):
    whole = content()
    whole[part][number].update(values)
    return whole


def without(part, number, key):
    whole = content()
    del whole[part][number][key]
    return whole


@pytest.mark.parametrize(
    ("whole", "words"),
    [
        ("{", "isn't JSON: Expecting property name"),
        ([dict(image_id=1, bbox=[0, 0, 1, 1])], "isn't a COCO annotation file: it holds a list, not a mapping"),
        (dict(shapes=[], version="5"), "has no list 'images', only shapes, version"),
        (content(annotations=None), "has no list 'annotations', only images, annotations, categories"),
        (content(images=[]), "has no images"),
        (content(categories=[]), "has no categories"),
        (without("images", 1, "width"), "images[1] has no 'width'"),
        (without("annotations", 1, "bbox"), "annotations[1] has no 'bbox'"),
        (content(categories=["cat"]), "categories[0] has no 'id'"),
        (broken("images", 1, id=1), "two of the images have the id 1"),
        (broken("images", 1, file_name="a.png"), "two of the images have the file_name 'a.png'"),
        (broken("annotations", 1, id=0), "two of the annotations have the id 0"),
        (broken("categories", 1, id=9), "two of the categories have the id 9"),
        (broken("categories", 1, name="cat"), "two of the categories have the name 'cat'"),
        (broken("categories", 1, name=3), "categories[1].name=3 is no text"),
        (broken("categories", 1, id="4"), "some ids of categories are numbers and some are text"),
        (broken("images", 1, width=0), "the image b.png has width=0, which is no number of pixels"),
        (broken("annotations", 1, image_id=3), "the annotation of id 5 is of the image of id 3, which isn't among the images"),
        (broken("annotations", 1, category_id=1), "is of the category of id 1, which isn't among the categories"),
        (broken("annotations", 1, bbox=[1, 2, 3]), "has bbox=[1, 2, 3], which isn't [x, y, width, height] in pixels"),
        (broken("annotations", 1, bbox=[1, 2, float("nan"), 4]), "has bbox=[1, 2, nan, 4], which isn't"),
    ],
)
def test_what_is_wrong_is_told(tmp_path, whole, words):
    file = tmp_path / "instances.json"
    file.write_text(whole if isinstance(whole, str) else json.dumps(whole))
    with pytest.raises(UserError) as caught:
        read(file)
    said = str(caught.value)
    assert words in said and str(file) in said and "\n" not in said


def test_a_missing_file_and_bytes_that_are_no_text(tmp_path):
    with pytest.raises(UserError, match=r"none\.json does not exist: give data_root=FOLDER"):
        read(tmp_path / "none.json")
    (tmp_path / "image.json").write_bytes(b"\x89PNG\xff")
    with pytest.raises(UserError, match=r"image\.json isn't JSON"):
        read(tmp_path / "image.json")


def test_boxes_that_show_nothing_are_left_out_and_counted_once(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("tasks.detection.annotations.say", said.append)
    file = tmp_path / "instances.json"
    boxes = ([0, 0, 0, 5], [3, 3, 4, -1], [64, 0, 5, 5], [-9, 0, 9, 5], [0, 48.5, 5, 5], [-9, 40, 9.5, 30])
    more = [dict(id=10 + i, image_id=1, category_id=9, bbox=box) for i, box in enumerate(boxes)]
    file.write_text(json.dumps(content(annotations=content()["annotations"] + more)))
    found = read(file)
    read(file)
    # the last box shows half a pixel's width
    assert found.dropped == 5 and [entry["bbox"] for entry in found.content["annotations"]][2:] == [boxes[-1]]
    assert said == [f"{file}: 5 boxes are of zero size or outside of the image, and left out"]


def test_what_evaluators_need_is_there(tmp_path):
    file = tmp_path / "instances.json"
    file.write_text(json.dumps(content()))
    found = read(file)
    first, second = found.content["annotations"]
    # pycocotools takes a match with an annotation of id 0 for none
    assert (first["id"], first["iscrowd"], first["area"]) == (1, 0, 600)
    assert (second["id"], second["iscrowd"], second["area"]) == (2, 0, 105.0)
    assert found.classes == ("dog", "cat")


def test_category_ids_are_found_in_any_order(tmp_path, capsys):
    file = tmp_path / "instances.json"
    file.write_text(json.dumps(content()))
    coco = Coco(file)
    assert coco.get_cat_ids(cat_names=["cat", "dog"]) == [9, 4] and coco.get_cat_ids(cat_names=["dog"]) == [4]
    assert coco.get_img_ids() == [1, 2] and coco.img_ann_map[2][0]["bbox"] == [0, 0, 10, 10.5]
    with pytest.raises(UserError, match="has no category 'cow': it has dog, cat"):
        coco.get_cat_ids(cat_names=["cow"])
    assert capsys.readouterr().out == ""
