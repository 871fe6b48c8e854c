import re

import pytest

from zoo.io.names import MAX_LENGTH, default_name, fresh_path, slug


@pytest.mark.parametrize(
    ("reference", "words", "seed", "suffix", "name"),
    [
        ("tarflow:shapes", "a red circle", 0, ".png", "tarflow-shapes-a-red-circle-seed0.png"),
        ("tarflow:shapes", "A Red  Circle!", 12, "PNG", "tarflow-shapes-a-red-circle-seed12.png"),
        ("tarflow", None, 3, ".jpg", "tarflow-seed3.jpg"),
        ("tarflow", "", 3, ".jpg", "tarflow-seed3.jpg"),
        ("pixart:v1@main", "Ein Café, groß", 0, ".webp", "pixart-v1-main-ein-cafe-gross-seed0.webp"),
        ("tarflow", "赤い円", 0, ".png", "tarflow-seed0.png"),
        ("tarflow", "../../etc/passwd", 0, ".png", "tarflow-etc-passwd-seed0.png"),
        ("tarflow", 'C:\\con.png\0\n"|?*', 0, ".png", "tarflow-c-con-png-seed0.png"),
        ("tarflow", "a folder", 5, "", "tarflow-a-folder-seed5"),
        ("tarflow", "--out=/tmp/x", 0, ".png", "tarflow-out-tmp-x-seed0.png"),
    ],
)
def test_default_names(reference, words, seed, suffix, name):
    assert default_name(reference, words, seed, suffix) == name


@pytest.mark.parametrize("words", ["word " * 50, "w" * 300, "ab" * 30 + " " + "c" * 300, "é" * 500])
@pytest.mark.parametrize("reference", ["tarflow", "m" * 64 + ":" + "v" * 64 + "@" + "r" * 64])
@pytest.mark.parametrize("seed", [0, 2**63 - 1])
def test_long_names_are_cut_and_stay_safe(reference, words, seed):
    name = default_name(reference, words, seed, ".webp")
    assert len(name) <= MAX_LENGTH
    assert re.fullmatch(rf"[a-z0-9]+(-[a-z0-9]+)*-seed{seed}\.webp", name)


def test_a_long_prompt_ends_at_a_whole_word():
    assert slug("large red circle", 16) == "large-red-circle"
    assert slug("large red circle", 15) == "large-red"
    assert slug("large red circle", 9) == "large-red"
    assert slug("large red circle", 3) == "lar"


def test_fresh_path_counts_up(tmp_path):
    taken = []
    for _ in range(3):
        path = fresh_path(tmp_path, "x.y.png")
        path.touch()
        taken.append(path.name)
    assert taken == ["x.y.png", "x.y-2.png", "x.y-3.png"]


def test_fresh_path_fills_no_name_of_a_dangling_link(tmp_path):
    (tmp_path / "x.png").symlink_to(tmp_path / "nowhere")
    assert fresh_path(tmp_path, "x.png") == tmp_path / "x-2.png"


def test_fresh_path_in_a_folder_to_come(tmp_path):
    assert fresh_path(tmp_path / "later", "x.png") == tmp_path / "later" / "x.png"
