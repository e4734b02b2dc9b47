"""Nearest entries by ROUGE-L: the decisions of rouge_score, exactly."""

from __future__ import annotations

import random
import sys
import unicodedata

import pytest
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenize import tokenize

from alpaca_lora.data.similarity import SimilarityIndex, rouge_l, words
from alpaca_lora.errors import ConfigError, DataError, MissingDependencyError

SCORER = RougeScorer(["rougeL"])


def f1(one, other):
    return SCORER.score(one, other)["rougeL"].fmeasure


def variants(count, seed=0):
    """Pairs of texts, the second mostly a disturbed copy of the first, so that many lie near the threshold."""
    generator = random.Random(seed)
    vocabulary = [f"w{number}" for number in range(15)]
    for _ in range(count):
        one = generator.choices(vocabulary, k=generator.randint(0, 30))
        other = [word if generator.random() < 0.8 else generator.choice(vocabulary) for word in one]
        other = other[: generator.randint(0, 40)] + generator.choices(vocabulary, k=generator.choice([0, 0, 1, 2, 5]))
        yield " ".join(one), " ".join(other)


@pytest.mark.parametrize("threshold", [0.7, 0.5, 1.0])
def test_decisions_and_scores_are_those_of_rouge_score(threshold):
    near = 0
    for one, other in variants(2_000 if threshold == 0.7 else 300):
        index = SimilarityIndex(threshold)
        index.add(one)
        expected = f1(one, other)
        near += abs(expected - threshold) < 0.05
        assert index.nearest(other) == ((0, expected) if expected >= threshold else None)
    assert near >= 5


def test_at_every_pair_of_lengths_the_border_is_that_of_rouge_score():
    """7 common words of 10 and 10 are 0.7 or just below, as rounding has it; so for all lengths with such a border."""
    for length in range(1, 61):
        for other in range(1, 61):
            index = SimilarityIndex(0.7)
            common = -(-7 * (length + other) // 20)  # the least that 2 * common / (length + other) >= 7 / 10 asks for
            for shared in {common - 1, common} & set(range(1, min(length, other) + 1)):
                precision, recall = shared / length, shared / other
                fmeasure = 2 * precision * recall / (precision + recall)  # rouge_score.scoring.fmeasure
                assert rouge_l(shared, length, other) == fmeasure
                assert (index._least_common(length, other) <= shared) == (fmeasure >= 0.7)


def test_the_nearest_of_many_is_the_best_and_of_equals_the_first():
    generator = random.Random(1)
    pool = [other for _, other in variants(60, seed=2)] * 2
    index = SimilarityIndex(0.4)
    assert [index.add(text) for text in pool] == list(range(120))
    assert len(index) == 120
    for _ in range(40):
        query = " ".join(generator.choice(pool).split()[1:]) + " w3"
        scores = [f1(text, query) for text in pool]
        best = max(scores)
        assert index.nearest(query) == ((scores.index(best), best) if best >= 0.4 else None)


@pytest.mark.parametrize(
    "text",
    [
        "Don't panic: 42 times!",
        "",
        "...",
        "a_b c-d\te\nf",
        "“quoted” — text…",
        "❤️ me 1️⃣",
        "WORDS_of 1990's—and…",
    ],
)
def test_words_are_those_of_rouge_score(text):
    assert words(text) == tokenize(text, None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Привет, мир!", ["привет", "мир"]),
        ("写诗 about 海", ["写", "诗", "about", "海"]),
        ("カタカナ ひら", ["カ", "タ", "カ", "ナ", "ひ", "ら"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("한국어 시", ["한국어", "시"]),
        ("αβγ42", ["αβγ42"]),
        ("สวัสดี", list("สวัสดี")),
        ("Tôi bán cá.", ["tôi", "bán", "cá"]),
        ("naïve_ÄRGER", ["naïve", "ärger"]),
        ("שָׁלוֹם עולם", ["שָׁלוֹם", "עולם"]),
        ("كَتَبَ الدرس", ["كَتَبَ", "الدرس"]),
        ("ラーメン二〇", ["ラ", "ー", "メ", "ン", "二", "〇"]),
        ("ភាសា", list("ភាសា")),
        ("it´s 5 ½", ["it", "s", "5", "1", "2"]),
    ],
)
def test_words_of_other_alphabets(text, expected):
    assert words(text) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Tôi bán cá ở chợ", "Tôi bạn ca ở chờ"),  # Vietnamese tones
        ("vì sao má bán mạ", "vì sao ma bàn má"),
        ("peut-être l'élève a péché", "peut-être l'élevé a pêche"),
        ("कल मैं घर जाऊंगा", "काल में घर जाऊंगी"),  # Devanagari vowel signs
        ("Жил да был кот", "Жил да был кит"),
        ("ป่า", "ปา"),  # a Thai tone mark
    ],
)
def test_sentences_that_differ_in_meaning_are_not_word_for_word_the_same(one, other):
    assert words(one) != words(other)
    index = SimilarityIndex(1.0)
    index.add(one)
    assert index.nearest(other) is None


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
@pytest.mark.parametrize(
    "text", ["Tôi bán cá ở chợ", "ÄRGER naïve", "한국어 시", "ガギグ パ", "हिन्दी क़लम", "שָׁלוֹם", "ΐ Ϊ́"]
)
def test_spellings_of_one_text_have_the_same_words(text, form):
    expected = words(unicodedata.normalize("NFC", text))
    assert len(expected) > 0
    assert words(unicodedata.normalize(form, text)) == expected
    assert words(unicodedata.normalize(form, text).swapcase()) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Ｗｒｉｔｅ　ａ　ｐｏｅｍ　４２", "write a poem 42"),  # full width
        ("ｶﾞｷﾞ", "ガギ"),  # half width
        ("ﬁne Straße", "fine STRASSE"),
        ("co\u00adoperate", "cooperate"),  # a soft hyphen
        ("می\u200cخواهم", "میخواهم"),  # a joiner
        ("محـــمد", "محمد"),  # tatweel
        ("ﻣﺤﻤﺪ", "محمد"),  # presentation forms
        ("x² ①", "x2 1"),
    ],
)
def test_what_is_only_drawn_differently_is_the_same_word(one, other):
    assert words(one) == words(other) != []


def test_texts_of_other_scripts_are_compared():
    index = SimilarityIndex()
    index.add("写一首关于大海的短诗")
    assert index.nearest("写一首关于大山的短诗") == (0, pytest.approx(0.9))
    assert index.nearest("你喜欢吃什么菜呢") is None


def test_a_text_without_words_is_near_to_nothing():
    index = SimilarityIndex()
    assert index.nearest("anything") is None
    index.add("?!")
    assert index.nearest("?!") is None
    assert index.nearest("") is None


def test_words_that_no_entry_has_are_no_match_of_each_other():
    index = SimilarityIndex()
    index.add("one two three")
    assert index.nearest("four five six") is None
    assert index.add("four five six") == 1
    assert index.nearest("four five six") == (1, 1.0)


def test_more_words_than_the_first_plane_has():
    """Past 55,295 distinct words the code points jump over the surrogates, which no string may be encoded with."""
    index = SimilarityIndex()
    index.add(" ".join(f"w{number}" for number in range(70_000)))
    text, _ = next(iter(index._buckets.values()))
    text[0].encode("utf-8")
    assert len(set(text[0])) == 70_000
    index.add("w60000 w69999 w3")
    assert index.nearest("w60000 w69999 w3") == (1, 1.0)


class Full(dict):
    """A vocabulary that holds every code point."""

    def __len__(self):
        return 0x10FFFF - 2048


def test_a_vocabulary_without_end_is_refused():
    index = SimilarityIndex()
    index._codes = Full()
    with pytest.raises(DataError, match="more than 1,112,063 distinct words.*Compare parts"):
        index.add("another")


@pytest.mark.parametrize("threshold", [0, -0.1, 1.01, float("nan")])
def test_thresholds_that_are_none(threshold):
    with pytest.raises(ConfigError, match="is no F1 to reach; give a number above 0, up to 1"):
        SimilarityIndex(threshold)


def test_without_rapidfuzz_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "rapidfuzz", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'alpaca-lora\[data\]'"):
        SimilarityIndex()
