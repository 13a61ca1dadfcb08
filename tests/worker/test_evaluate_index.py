"""The labelled index: publishers' names for columns, labels that are missing, and files that are no index."""

from __future__ import annotations

from pathlib import Path

import pytest

from cds_plugin.errors import Refused
from cds_worker.evaluation.cases import Case, read_cases, split_of


def written(folder: Path, content: str) -> Path:
    (folder / "index.csv").write_text(content, encoding="utf-8")
    return folder / "index.csv"


def only(folder: Path, content: str) -> Case:
    (case,) = read_cases(written(folder, content))
    return case


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "can't be read"),
        ("", "no rows"),
        ("path,dx,lesion_id,mask_path\n", "no rows"),
        ("dx,lesion_id\nnv,1\n", "no column 'path', only dx, lesion_id"),
        ("path,dx\n,nv\n", "line 2: the path is empty"),
        ("path,age\n1.jpg,fifty\n", "line 2: the age is not a number"),
    ],
)
def test_an_index_that_is_none_is_refused_by_name(content: str | None, said: str, tmp_path: Path) -> None:
    index = tmp_path / "index.csv" if content is None else written(tmp_path, content)
    with pytest.raises(Refused, match=said) as caught:
        read_cases(index)
    assert caught.value.code == "bad_index"


def test_an_index_is_read_relative_to_itself_with_defaults(tmp_path: Path) -> None:
    case = only(tmp_path, "\ufeffpath,dx,extra\na/1.jpg,NV ,x\n")
    assert case == Case(tmp_path / "a" / "1.jpg", "nv", "a/1.jpg", None)


def test_ham10000_names_its_columns_so(tmp_path: Path) -> None:
    case = only(
        tmp_path,
        "path,lesion_id,dx,dx_type,age,sex,localization,fold\n1.jpg,HAM_1,mel,histo,80.0,male,scalp,0\n",
    )
    assert (case.age, case.sex, case.site, case.histology, case.split) == (
        80,
        "male",
        "scalp",
        True,
        "fold 0",
    )


def test_the_isic_archive_names_its_columns_so(tmp_path: Path) -> None:
    case = only(
        tmp_path,
        "path,patient_id,age_approx,sex,anatom_site_general,diagnosis_confirm_type,split\n"
        "1.jpg,IP_7,85+,F,Lower Extremity,single image expert consensus,test\n",
    )
    assert (case.age, case.sex, case.site, case.histology) == (85, "female", "lower extremity", False)
    assert (case.patient_id, case.split) == ("IP_7", "test")


def test_what_is_unknown_stays_unknown(tmp_path: Path) -> None:
    case = only(tmp_path, "path,dx,age,sex,site,histology,quality\n1.jpg,unknown,,unknown,NaN,,n/a\n")
    assert (case.dx, case.age, case.sex, case.site, case.histology, case.quality) == (
        "",
        None,
        "",
        "",
        None,
        "",
    )


def test_rows_are_chosen_by_their_values(tmp_path: Path) -> None:
    index = written(tmp_path, "path,fold\n1.jpg,0\n2.jpg,1\n3.jpg,0\n")
    assert [case.path.name for case in read_cases(index, {"fold": "0"})] == ["1.jpg", "3.jpg"]
    with pytest.raises(Refused, match="no rows with these values"):
        read_cases(index, {"fold": "7"})
    with pytest.raises(Refused, match="no column 'flod'"):
        read_cases(index, {"flod": "0"})


def test_the_split_is_named_as_the_index_names_it(tmp_path: Path) -> None:
    assert split_of(read_cases(written(tmp_path, "path,fold\n1.jpg,0\n2.jpg,1\n"))) == "fold 0, fold 1"
    assert split_of(read_cases(written(tmp_path, "path\n1.jpg\n"))) == "not stated"
    many = "path,fold\n" + "".join(f"{number}.jpg,{number}\n" for number in range(9))
    assert split_of(read_cases(written(tmp_path, many))) == "9 splits mixed"


def test_short_and_long_rows_are_read_as_far_as_they_go(tmp_path: Path) -> None:
    cases = read_cases(written(tmp_path, "path,dx,age\n1.jpg\n2.jpg,nv,50,what,else\n"))
    assert [(case.dx, case.age) for case in cases] == [("", None), ("nv", 50)]


def test_the_documented_way_from_a_folder_to_an_index_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pictures/mel/L1_a.jpg", "pictures/mel/L1_b.jpg", "pictures/nv/7.jpg", "masks/mel/L1_b.png"):
        (tmp_path / "collection" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "collection" / name).touch()
    page = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    program = page.partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(tmp_path)
    exec(compile(program, "docs/evaluation.md", "exec"), {})
    cases = read_cases(tmp_path / "collection" / "index.csv")
    assert [(case.dx, case.lesion_id) for case in cases] == [("mel", "L1"), ("mel", "L1"), ("nv", "7")]
    assert [case.mask_path is not None for case in cases] == [False, True, False]
    assert all(case.path.is_file() for case in cases)
    assert split_of(cases) == "own collection 2024"
