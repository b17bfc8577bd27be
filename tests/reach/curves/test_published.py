import pytest

from llmctl.errors import UserError
from llmctl.reach.curves.epsilon import epsilon_curve
from llmctl.reach.curves.published import read_published

HEADER = (
    "question,question_ids,answer,answer_ids,base_loss,search_method,best_prompt,best_prompt_ids,"
    "prompt_length,prompted_loss,base_correct,prompt_correct,question_length\n"
)
# Rows of our own in the published format: a base pair, greedy, GCG with a miss, quotes and newlines.
ROWS = [
    'A tall,"[5, 6]", tree,77,0.5,base,,[],0,-1.0,True,True,2\n',
    'A tall,"[5, 6]", ship,78,3.5,greedy, old,[9],1,1.25,False,True,2\n',
    '"Say ""so"",\nnow","[5, 7]",", and","[8, 9]",4.0,gcg, x y z w,"[1, 2, 3, 4]",4.0,0.5,False,True,2.0\n',
    'It was,"[6, 7]", zinc,79,9.0,gcg, q,"[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]",10,4.5,False,False,2\n',
    'It was,"[6, 7]", warm,80,0.2,None_,,[],0,0.2,True,True,2\n',
]


def write(path, rows, header=HEADER):
    path.write_text(header + "".join(rows), encoding="utf-8")
    return path


def test_published_rows_become_pairs(tmp_path):
    pairs = read_published(write(tmp_path / "r.csv", ROWS))
    assert [pair.k for pair in pairs] == [0, 1, 4, None, 0]
    assert [pair.method for pair in pairs] == ["base", "greedy", "gcg", "gcg", "base"]
    assert pairs[0].state == pairs[1].state == "5 6"
    assert pairs[2].control_ids == (1, 2, 3, 4)
    assert pairs[0].loss == 0.5 and pairs[1].loss == 1.25


def test_the_curve_counts_a_pair_from_its_prompt_length_on(tmp_path):
    points = epsilon_curve(read_published(write(tmp_path / "r.csv", ROWS)), [0, 1, 3, 4, 10])
    assert [round(100 * (1 - point.value), 2) for point in points] == [40, 60, 60, 80, 80]
    assert [point.is_switch for point in points] == [False, False, False, True, False]
    assert points[0].n == 5 and points[0].clusters == 3


def test_columns_may_come_in_another_order_with_more_of_them(tmp_path):
    header = (
        "answer_ids,question_ids,base_prediction,base_loss,search_method,best_prompt_ids,prompt_length,"
        "prompted_loss,prompt_correct\n"
    )
    path = write(tmp_path / "r.csv", ['78,"[5, 6]",3,3.5,greedy,[9],1,1.25,True\n'], header)
    assert read_published(path)[0].id == "5 6|78"


def test_shards_are_joined_and_a_pair_in_two_of_them_counts_once(tmp_path):
    write(tmp_path / "a.csv", ROWS[:3])
    write(tmp_path / "b.csv", ROWS[2:])
    assert len(read_published(tmp_path)) == 5
    assert len(read_published([tmp_path / "a.csv", tmp_path / "b.csv"])) == 5


def test_every_row_of_one_file_counts(tmp_path):
    write(tmp_path / "a.csv", [ROWS[1], ROWS[1]])
    assert [pair.k for pair in read_published(tmp_path)] == [1, 1]


def test_shards_that_disagree_are_refused(tmp_path):
    write(tmp_path / "a.csv", ROWS[:2])
    write(tmp_path / "b.csv", [ROWS[1].replace("False,True,2", "False,False,2")])
    with pytest.raises(UserError, match="another outcome"):
        read_published(tmp_path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("x,5 6,y,7,1.0,greedy,z,[9],1,1.0,False,True,2\n", "line 2: the row cannot be read"),
        ('x,"[5]",y,7,1.0,greedy,z,[9],2,1.0,False,True,2\n', "prompt_length is 2, but .* holds 1"),
        ('x,"[5]",y,7,1.0,greedy,z,[9],1,1.0,False,maybe,2\n', "prompt_correct is 'maybe'"),
    ],
)
def test_a_row_that_can_not_be_read_is_named(tmp_path, row, message):
    with pytest.raises(UserError, match=message):
        read_published(write(tmp_path / "r.csv", [row]))


def test_another_file_is_refused_by_its_columns(tmp_path):
    with pytest.raises(UserError, match="no column 'question_ids'"):
        read_published(write(tmp_path / "r.csv", [], "a,b\n"))
    with pytest.raises(UserError, match="no CSV file and holds none"):
        read_published(tmp_path / "nothing.csv")
