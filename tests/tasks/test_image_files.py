"""Reading image files for mmdet and mmseg: what is cut short is told, whatever cv2 makes of it; what is whole is read."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("mmcv")

from search.engine.errors import UserError
from tasks.image_files import LoadImage, require_whole


def jpeg(**settings):
    pixels = np.random.default_rng(0).integers(0, 255, (64, 48, 3)).astype(np.uint8)
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **settings)
    return buffer.getvalue()


@pytest.mark.parametrize("settings", [{}, dict(progressive=True), dict(restart_marker_rows=1)], ids=str)
@pytest.mark.parametrize("share", [0.5, 0.75, 0.99])
def test_a_jpeg_file_that_is_cut_short_is_refused(tmp_path, settings, share):
    whole = jpeg(**settings)
    path = tmp_path / "cut.jpg"
    path.write_bytes(whole[: int(share * len(whole))])
    # also where cv2 gives an image, the lower part grey
    with pytest.raises(OSError, match="truncated"):
        require_whole(path)
    with pytest.raises(UserError, match=r"^cannot read \S+cut\.jpg: [^\n]*; replace or remove this file$"):
        LoadImage()(dict(img_path=str(path)))


@pytest.mark.parametrize("bytes_", [b"", b"\xff", b"\xff\xd8", b"\xff\xd8\xff"], ids=len)
def test_next_to_nothing_is_refused(tmp_path, bytes_):
    (tmp_path / "cut.jpg").write_bytes(bytes_)
    with pytest.raises(UserError, match="cannot read" if bytes_ else "the file is empty; replace or remove this file"):
        LoadImage()(dict(img_path=str(tmp_path / "cut.jpg")))


def test_what_may_be_empty_is_left_out(tmp_path):
    (tmp_path / "cut.jpg").write_bytes(jpeg()[:-100])
    load = LoadImage(ignore_empty=True)
    assert load(dict(img_path=str(tmp_path / "cut.jpg"))) is None and load(dict(img_path=str(tmp_path / "none.jpg"))) is None
    with pytest.raises(UserError, match="cannot read"):
        LoadImage(backend_args=dict(backend="local"))(dict(img_path=str(tmp_path / "cut.jpg")))


@pytest.mark.parametrize("settings", [{}, dict(progressive=True), dict(comment=b"\xff\xd9")], ids=str)
@pytest.mark.parametrize("more", [b"", b"\0" * 100, b"a second image", b"\xff\xd9"], ids=len)
def test_what_is_behind_the_end_does_no_harm(tmp_path, settings, more):
    path = tmp_path / "long.jpg"
    path.write_bytes(jpeg(**settings) + more)
    require_whole(path)
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))[..., ::-1]
    read = LoadImage()(dict(img_path=str(path)))["img"]
    assert read.shape == (64, 48, 3) and np.abs(read.astype(int) - expected).max() <= 4


@pytest.mark.parametrize("name", ["x.png", "x.bmp", "x.webp"])
def test_other_formats_are_left_to_their_readers(tmp_path, name):
    Image.new("RGB", (48, 64), (10, 20, 30)).save(tmp_path / name)
    require_whole(tmp_path / name)
    assert LoadImage()(dict(img_path=str(tmp_path / name)))["img"].shape == (64, 48, 3)
