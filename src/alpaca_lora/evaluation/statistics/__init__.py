"""Statistics of a comparison: votes on two models in, numbers and one honest sentence out.

    votes.py       one comparison, by one rater         ranking.py    Bradley-Terry, for more than two models
    intervals.py   win rate, intervals, sign test       agreement.py  Krippendorff's alpha
    power.py       how many comparisons it takes        bias.py       length and position
    summary.py     all of them together                 sentence.py   what they support

1,000 instructions with five raters take a fifth of a second, after scipy and statsmodels are imported (2 s).
"""
